"""What a conversion is going to do, decided before any pixel is read: one row per sample, in final order.

A converter yields `Sample`s; `build` turns them into columns, gives every sample a safe unique key, refuses
duplicates, and fixes the order. Nothing after it depends on the number of workers.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from shards.about import OWN, About
from shards.errors import InputError
from shards.format import LABEL, SEXES, SPLITS, STUDY, VIEWS, box_schema, reject_schema
from shards.opener import FileOpener, Opener
from shards.rows import Gathered, among, each, final_order, gather, keep, one, place, sort, with_column, without_repeats
from shards.sample import Sample, printable

pc: Any = pyarrow.compute  # its functions are made at import, unseen by type checkers

SourceBox = tuple[str, str, float, float, float, float]
_COLUMNS = ("key", "split", "patient_id", STUDY, "view", "sex", "age", "source")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The rows of a conversion in final order, and what is left out of it."""

    name: str
    """Data set name for the card."""
    labels: tuple[str, ...]
    """Label columns, in order."""
    table: pa.Table
    """Columns key, split, patient_id, study_id (where the source has it), view, sex, age, source, label_*; sorted by
    split, then by hash of the key."""
    refused: tuple[tuple[str, str], ...]
    """(source, reason) of rows refused without reading them; they count as rejects."""
    excluded: tuple[tuple[str, str], ...]
    """(source, reason) of rows left out by choice or without a file; listed, but no sign of a bad run."""
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
    """What the user should hear."""
    source: str = ""
    """Whose data they are, for the card."""
    about: About = OWN
    """Licence, citation and home of a published data set."""
    origin: Mapping[str, Any] = field(default_factory=dict)
    """More facts for the card's config, e.g. how the pictures were drawn."""

    @property
    def fingerprint(self) -> str:
        """sha256 over every row, kept or left out."""
        digest = hashlib.sha256()
        for table in (self.table, reject_table(self.refused), reject_table(self.excluded), *self.extras.values()):
            with pa.PythonFile(_Into(digest), "w") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
                stream.write_table(table.combine_chunks())
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


def reject_table(rows: Iterable[tuple[str, str]]) -> pa.Table:
    """Return (source, reason) pairs as a table, sorted."""
    ordered = sorted((printable(source), printable(reason)) for source, reason in rows)
    return pa.table([[row[0] for row in ordered], [row[1] for row in ordered]], schema=reject_schema())


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
    excluded: Iterable[tuple[str, str]] = (),
    refused: Iterable[tuple[str, str]] = (),
    boxes: Sequence[SourceBox] | None = None,
    notes: Sequence[str] = (),
) -> Plan:
    """Return the plan of a conversion.

    Args:
        samples: what to convert, as samples or as `shards.rows.gather` makes a table of them (taken over); the first of
            two with one key wins, the other is refused.
        name: data set name.
        labels: label columns, in order.
        split_scheme: name of the split scheme.
        opener: reads a source.
        source: whose data they are, for the card.
        about: licence, citation and home, for the card.
        split_detail: what else determines the splits.
        excluded: (source, reason) of rows without a file or not asked for.
        refused: (source, reason) of unusable rows.
        boxes: (source, label, x, y, width, height) in source pixels; boxes of sources not kept are dropped. None: the
            data set has none.
        notes: what the user should hear.

    Raises:
        InputError: nothing to convert, or a value outside the allowed ones.
    """
    turned_away = list(refused)
    table = samples.take() if isinstance(samples, Gathered) else gather(_of_utf8(samples, turned_away), labels)
    if isinstance(opener, FileOpener):
        table = _inside(table, turned_away)
    table = _of_own_key(table, turned_away)
    if not table.num_rows:
        raise InputError(f"{name}: no image to convert; is --src the folder of the data set? (docs/datasets.md)")
    _check(table)
    patients_known = table["patient_id"].null_count < table.num_rows
    table = with_column(table, "patient_id", pc.coalesce(table["patient_id"], table["key"]))
    order = final_order(table)
    columns = {name: table[name] for name in (*_COLUMNS, *(LABEL + label for label in labels))}
    if columns[STUDY].null_count == table.num_rows:
        del columns[STUDY]
    del table
    table = sort(columns, order)
    shared = shared_patients(table) if patients_known else {}
    return Plan(
        name=name,
        labels=tuple(labels),
        table=table,
        refused=tuple(turned_away),
        excluded=tuple(excluded),
        split_scheme=split_scheme,
        split_detail=dict(split_detail or {}),
        patients_known=patients_known,
        shared_patients=shared,
        opener=opener,
        source=source,
        about=about,
        extras={} if boxes is None else {"boxes.parquet": _box_table(boxes, table)},
        notes=(*notes, *_loud(shared)),
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
    splits = pc.unique(table["split"]).to_pylist()
    return in_two_splits({s: pc.unique(table.filter(pc.equal(table["split"], s))["patient_id"]) for s in splits})


def in_two_splits(members: Mapping[str, pa.Array]) -> dict[str, int]:
    """Return how many patients each pair of splits shares, from the different patients of every split."""
    names = [name for name in SPLITS if name in members]
    pairs = {
        f"{a}/{b}": int(among(members[a], members[b]).sum())
        for position, a in enumerate(names)
        for b in names[position + 1 :]
    }
    return {pair: count for pair, count in pairs.items() if count}


def _loud(shared: Mapping[str, int]) -> list[str]:
    return [
        f"WARNING: {count} patients are in both {pair.replace('/', ' and ')}; results on this split scheme are "
        "optimistic (recorded in the card)"
        for pair, count in shared.items()
    ]


def _box_table(boxes: Sequence[SourceBox], table: pa.Table) -> pa.Table:
    rows = place(pa.array([box[0] for box in boxes], pa.string()), table["source"])
    keys = table["key"].take(rows).to_pylist()
    kept = sorted((key, *box[1:]) for key, box in zip(keys, boxes, strict=True) if key is not None)
    return pa.table([[row[column] for row in kept] for column in range(6)], schema=box_schema())
