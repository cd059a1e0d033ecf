"""What a conversion is going to do, decided before any pixel is read: one row per sample, in final order.

A converter yields `Sample`s; `build` turns them into columns, gives every sample a safe unique key, refuses
duplicates, and fixes the order. Nothing after it depends on the number of workers. `shards.convert.standing` keeps a
plan in a file, for the parts of a conversion.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from shards.convert.about import OWN, About
from shards.convert.boxes import of_samples
from shards.convert.opener import FileOpener, Opener
from shards.convert.rows import (
    Gathered,
    coalesced,
    each,
    final_order,
    gather,
    groups,
    keep,
    one,
    place,
    with_column,
    without_repeats,
)
from shards.convert.sample import Sample, printable
from shards.convert.spill import contiguous, forget, reordered
from shards.errors import InputError
from shards.format import LABEL, SEXES, SPLITS, STUDY, VIEWS, reject_schema

if TYPE_CHECKING:
    from shards.convert.plan_file import PlanFile

pc: Any = pyarrow.compute  # its functions are made at import, unseen by type checkers

_COLUMNS = ("key", "split", "patient_id", STUDY, "view", "sex", "age", "source")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The rows of a conversion in final order, and what is left out of it."""

    name: str
    """Dataset name for the card."""
    labels: tuple[str, ...]
    """Label columns, in order."""
    table: pa.Table | PlanFile
    """Columns key, split, patient_id, study_id (where the source has it), view, sex, age, source, label_*; sorted by
    split, then by hash of the key."""
    refused: tuple[tuple[str, str], ...]
    """(source, reason) of rows refused without reading them; they count as rejects."""
    excluded: pa.Table | PlanFile
    """Columns source and reason, sorted, of rows left out by choice or without a file; they do not count as rejects."""
    split_scheme: str
    """Name of the scheme for the card."""
    split_detail: Mapping[str, Any]
    """Fractions and seed."""
    patients_known: bool
    """False where patient_id is only the key."""
    shared_patients: Mapping[str, int]
    """Patients found in two splits, e.g. {"train/test": 170}."""
    opener: Opener
    """Reads a source."""
    extras: Mapping[str, pa.Table] = field(default_factory=dict)
    """More files for the set, e.g. boxes.parquet."""
    notes: tuple[str, ...] = ()
    """Lines for the user."""
    source: str = ""
    """Whose data they are, for the card."""
    about: About = OWN
    """Licence, citation and home of a published dataset."""
    origin: Mapping[str, Any] = field(default_factory=dict)
    """More facts for the card's config, e.g. how the images were drawn."""
    known_fingerprint: str | None = None
    """The fingerprint, where it is known already."""

    def rows(self, first: int, last: int) -> pa.Table:
        """Return some rows (`last` excluded)."""
        return self.table.slice(first, last - first)

    def left_out(self) -> pa.Table:
        """Return all of `excluded`."""
        return self.excluded.slice(0, self.excluded.num_rows)

    def cell(self, column: str, row: int) -> Any:
        """Return one value."""
        return self.rows(row, row + 1)[column][0].as_py()

    @property
    def split_counts(self) -> dict[str, int]:
        """Rows of every split."""
        if isinstance(self.table, pa.Table):
            return {entry["values"]: entry["counts"] for entry in self.table["split"].value_counts().to_pylist()}
        return self.table.split_counts

    @property
    def fingerprint(self) -> str:
        """sha256 over every row, kept or left out."""
        if self.known_fingerprint is not None:
            return self.known_fingerprint
        digest, own = hashlib.sha256(), self.table
        assert isinstance(own, pa.Table)
        tables: list[pa.Table] = [own, reject_table(self.refused), self.left_out(), *self.extras.values()]
        for table in tables:
            whole = [contiguous(column) for column in table.columns]
            with pa.PythonFile(_Into(digest), "w") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
                if table.num_rows:
                    stream.write_batch(pa.record_batch(whole, schema=table.schema))
            forget()
        facts = (self.name, self.labels, self.split_scheme, dict(self.split_detail), dict(self.origin))
        digest.update(json.dumps(facts, sort_keys=True).encode())
        return digest.hexdigest()


class _Into(io.RawIOBase):
    """A file whose content goes into a hash, so that a large table is never copied whole."""

    def __init__(self, digest: Any) -> None:
        self.digest = digest

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, data: Any) -> int:
        """Hash one piece."""
        self.digest.update(data)
        return len(data)


def reject_table(rows: Iterable[tuple[str, str]], *more: pa.Table) -> pa.Table:
    """Return (source, reason) pairs, and those of tables of them, as one table, sorted."""
    pairs = [(printable(source), printable(reason)) for source, reason in rows]
    own = pa.table([[pair[0] for pair in pairs], [pair[1] for pair in pairs]], schema=reject_schema())
    table = pa.concat_tables([own, *more])
    order = pc.sort_indices(table, sort_keys=[(name, "ascending") for name in table.column_names])
    table = reordered(table, order.to_numpy().astype(np.int64))
    return pa.table([contiguous(column) for column in table.columns], schema=reject_schema())


def build(
    samples: Iterable[Sample] | Gathered,
    *,
    name: str,
    labels: Sequence[str],
    split_scheme: str,
    opener: Opener,
    source: str = "",
    about: About = OWN,
    split_detail: Mapping[str, Any] | None = None,
    excluded: Iterable[pa.Table] = (),
    refused: Iterable[tuple[str, str]] = (),
    boxes: pa.Table | None = None,
    notes: Sequence[str] = (),
) -> Plan:
    """Return the plan of a conversion.

    Args:
        samples: what to convert, as samples or as `shards.convert.rows.gather` makes a table of them (taken over); the
            first of two with one key wins, the other is refused.
        name: dataset name.
        labels: label columns, in order.
        split_scheme: name of the split scheme.
        opener: reads a source.
        source: whose data they are, for the card.
        about: licence, citation and home, for the card.
        split_detail: what else determines the splits.
        excluded: rows without a file or not asked for, in tables as `shards.convert.rows.left_out` makes them.
        refused: (source, reason) of unusable rows.
        boxes: of the sources, as `shards.convert.boxes.gather_boxes` makes them; those of sources not kept are dropped.
            None: the dataset has none.
        notes: lines for the user.

    Raises:
        InputError: nothing to convert, or a value outside the allowed ones.
    """
    turned_away = list(refused)
    table = samples.take() if isinstance(samples, Gathered) else gather(_of_utf8(samples, turned_away), labels)
    if isinstance(opener, FileOpener):
        table = _inside(table, turned_away)
    table = _of_own_key(table, turned_away)
    if not table.num_rows:
        raise InputError(f"{name}: no image to convert; is --src the folder of the dataset? (docs/datasets.md)")
    _check(table)
    patients_known = table["patient_id"].null_count < table.num_rows
    table = with_column(table, "patient_id", coalesced(table, "patient_id", "key"))
    columns = [*_COLUMNS, *(LABEL + label for label in labels)]
    if table[STUDY].null_count == table.num_rows:
        columns.remove(STUDY)
    table = reordered(table.select(columns), final_order(table))
    shared = shared_patients(table) if patients_known else {}
    return Plan(
        name=name,
        labels=tuple(labels),
        table=table,
        refused=tuple(turned_away),
        excluded=reject_table((), *excluded),
        split_scheme=split_scheme,
        split_detail=dict(split_detail or {}),
        patients_known=patients_known,
        shared_patients=shared,
        opener=opener,
        source=source,
        about=about,
        extras={} if boxes is None else {"boxes.parquet": of_samples(boxes, table)},
        notes=(*notes, *loud(shared)),
    )


def _of_utf8(samples: Iterable[Sample], turned_away: list[tuple[str, str]]) -> Iterator[Sample]:
    for sample in samples:
        if printable(sample.source) == sample.source:
            yield sample
        else:
            turned_away.append((sample.source, "file name is not UTF-8"))


OUTSIDE = "path leaves the source folder"
_LEAVES = r"^[/\\]|(^|[/\\])\.\.([/\\]|$)|\x00"


def leaves(sources: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Return bool (N,): True for paths that lead out of the source folder."""
    return one(pc.match_substring_regex(sources, _LEAVES)).to_numpy(zero_copy_only=False)


def _inside(table: pa.Table, turned_away: list[tuple[str, str]]) -> pa.Table:
    outside = leaves(table["source"])
    if not outside.any():
        return table
    gone = table["source"].filter(pa.array(outside)).to_pylist()
    turned_away += [(source, OUTSIDE) for source in gone]
    return keep(table, ~outside)


def _of_own_key(table: pa.Table, turned_away: list[tuple[str, str]]) -> pa.Table:
    kept, repeats = without_repeats(table, "key")
    if not repeats.num_rows:
        return kept
    owners = kept["source"].take(place(repeats["key"], kept["key"]))
    for source, key, owner in zip(each(repeats["source"]), each(repeats["key"]), each(owners), strict=True):
        turned_away.append((source, f"duplicate key {key} (taken by {owner})"))
    return kept


def _check(table: pa.Table) -> None:
    for column, allowed in (("split", SPLITS), ("view", (None, *VIEWS)), ("sex", (None, *SEXES))):
        for value in pc.unique(table[column]).to_pylist():
            if value not in allowed:
                first = table["source"][pc.index(table[column], value).as_py()]
                listed = ", ".join(filter(None, allowed))
                raise InputError(f"{first}: {column} {value!r}; allowed are {listed}")


def shared_patients(table: pa.Table) -> dict[str, int]:
    """Return how many patients each pair of splits shares, pairs without any left out."""
    splits = pc.fill_null(one(pc.index_in(table["split"], value_set=pa.array(SPLITS))), -1)
    return in_two_splits(members_of_splits(table["patient_id"], splits.to_numpy(zero_copy_only=False).astype(np.int8)))


def members_of_splits(patients: pa.ChunkedArray, splits: np.ndarray) -> np.ndarray:
    """Return bool (splits, patients): whether a patient is in a split; `splits` (N,) are places in SPLITS, or -1."""
    code, first = groups(patients)
    members = np.zeros((len(SPLITS), len(first)), dtype=bool)
    for split in range(len(SPLITS)):
        members[split, code[splits == split]] = True
    return members


def in_two_splits(members: np.ndarray) -> dict[str, int]:
    """Return how many patients each pair of splits shares, from what `members_of_splits` gives."""
    pairs = {
        f"{a}/{b}": int((members[first] & members[second]).sum())
        for first, a in enumerate(SPLITS)
        for second, b in enumerate(SPLITS)
        if first < second
    }
    return {pair: count for pair, count in pairs.items() if count}


def loud(shared: Mapping[str, int]) -> list[str]:
    """Return a warning for the user per pair of splits that share patients, of what `shared_patients` gives."""
    return [
        f"WARNING: {count} patients are in both {pair.replace('/', ' and ')}; results on this split scheme are "
        "optimistic (recorded in the card)"
        for pair, count in shared.items()
    ]
