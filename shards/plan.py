"""What a conversion is going to do, decided before any pixel is read: one row per sample, in final order.

A converter yields `Sample`s; `build` turns them into columns, gives every sample a safe unique key, refuses
duplicates, and fixes the order. Nothing after it depends on the number of workers.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from shards.errors import InputError
from shards.opener import LABEL, FileOpener, Opener

REJECT_SCHEMA = pa.schema([("source", pa.string()), ("reason", pa.string())])
BOX_SCHEMA = pa.schema(
    [("key", pa.string()), ("label", pa.string())] + [(name, pa.float64()) for name in ("x", "y", "width", "height")]
)
"""boxes.parquet: left, top, width and height in pixels of the published image."""
VIEWS = ("PA", "AP", "LATERAL")
SEXES = ("M", "F")
_LONGEST_KEY = 80
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One image of the source, before conversion."""

    source: str
    """Path relative to the source root, or another name that the opener understands; unique."""
    key: str
    """Wanted name of the sample; made safe and checked for uniqueness by `build`."""
    split: str
    """train, val or test."""
    patient_id: str | None = None
    """Patient; None: unknown, the key stands in."""
    labels: Mapping[str, int | None] = field(default_factory=dict)
    """Label name -> 1, 0, -1 or None (not mentioned); names left out are None."""
    view: str | None = None
    """PA, AP, LATERAL or None."""
    sex: str | None = None
    """M, F or None."""
    age: float | None = None
    """Years or None."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The rows of a conversion in final order, and what is left out of it."""

    name: str
    """Data set name for the card."""
    labels: tuple[str, ...]
    """Label columns, in order."""
    table: pa.Table
    """Columns key, split, patient_id, view, sex, age, source, label_*; sorted by split, then by hash of the key."""
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
    origin: Mapping[str, Any] = field(default_factory=dict)
    """More facts for the card's config, e.g. how the pictures were drawn."""

    @property
    def fingerprint(self) -> str:
        """sha256 over every row, kept or left out."""
        digest = hashlib.sha256()
        for table in (self.table, reject_table(self.refused), reject_table(self.excluded), *self.extras.values()):
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, table.schema) as stream:
                stream.write_table(table.combine_chunks())
            digest.update(sink.getvalue())
        facts = (self.name, self.labels, self.split_scheme, dict(self.split_detail), dict(self.origin))
        digest.update(json.dumps(facts, sort_keys=True).encode())
        return digest.hexdigest()


def reject_table(rows: Iterable[tuple[str, str]]) -> pa.Table:
    """Return (source, reason) pairs as a table, sorted."""
    ordered = sorted((printable(source), printable(reason)) for source, reason in rows)
    return pa.table([[row[0] for row in ordered], [row[1] for row in ordered]], schema=REJECT_SCHEMA)


def build(
    samples: Iterable[Sample],
    *,
    name: str,
    labels: Sequence[str],
    split_scheme: str,
    opener: Opener,
    source: str = "",
    split_detail: Mapping[str, Any] | None = None,
    excluded: Iterable[tuple[str, str]] = (),
    refused: Iterable[tuple[str, str]] = (),
    boxes: Sequence[tuple[str, str, float, float, float, float]] | None = None,
    notes: Sequence[str] = (),
) -> Plan:
    """Return the plan of a conversion.

    Args:
        samples: what to convert; the first of two with one key wins, the other is refused.
        name: data set name.
        labels: label columns, in order.
        split_scheme: name of the split scheme.
        opener: reads a source.
        source: whose data they are, for the card.
        split_detail: what else determines the splits.
        excluded: (source, reason) of rows without a file or not asked for.
        refused: (source, reason) of unusable rows.
        boxes: (source, label, x, y, width, height) in source pixels; boxes of sources not kept are dropped. None: the
            data set has none.
        notes: what the user should hear.

    Raises:
        InputError: nothing to convert, or a value outside the allowed ones.
    """
    labels = tuple(labels)
    columns: dict[str, list[Any]] = {key: [] for key in ("key", "split", "patient_id", "view", "sex", "age", "source")}
    label_columns: dict[str, list[int | None]] = {label: [] for label in labels}
    turned_away = list(refused)
    taken: dict[str, str] = {}
    patients_known = False
    for sample in samples:
        reason = _unsafe_path(sample.source) if isinstance(opener, FileOpener) else None
        key = safe_key(sample.key)
        if reason is None and key in taken:
            reason = f"duplicate key {key} (taken by {taken[key]})"
        if reason is not None:
            turned_away.append((sample.source, reason))
            continue
        _check(sample)
        taken[key] = sample.source
        patients_known = patients_known or sample.patient_id is not None
        values = (key, sample.split, sample.patient_id or key, sample.view, sample.sex, sample.age, sample.source)
        for column, value in zip(columns.values(), values, strict=True):
            column.append(value)
        for label, column in label_columns.items():
            column.append(sample.labels.get(label))
    if not taken:
        raise InputError(f"{name}: no image to convert; is --src the folder of the data set? (docs/datasets.md)")
    table = _sorted(columns, label_columns)
    shared = shared_patients(table) if patients_known else {}
    extras = {} if boxes is None else {"boxes.parquet": _box_table(boxes, taken)}
    return Plan(
        name=name,
        labels=labels,
        table=table,
        refused=tuple(turned_away),
        excluded=tuple(excluded),
        split_scheme=split_scheme,
        split_detail=dict(split_detail or {}),
        patients_known=patients_known,
        shared_patients=shared,
        opener=opener,
        source=source,
        extras=extras,
        notes=(*notes, *_loud(shared)),
    )


def _check(sample: Sample) -> None:
    if sample.split not in ("train", "val", "test"):
        raise InputError(f"{sample.source}: split {sample.split!r}; allowed are train, val, test")
    if sample.view not in (None, *VIEWS) or sample.sex not in (None, *SEXES):
        raise InputError(f"{sample.source}: view {sample.view!r} or sex {sample.sex!r} is not one of the allowed ones")


def _sorted(columns: dict[str, list[Any]], label_columns: dict[str, list[int | None]]) -> pa.Table:
    """Order by split, then by a hash of the key: any run of samples is then a fair mixture of the source."""
    rank = [hashlib.sha256(key.encode()).digest() for key in columns["key"]]
    order = sorted(range(len(rank)), key=lambda row: (columns["split"][row], rank[row]))
    arrays: dict[str, pa.Array] = {}
    for name, values in columns.items():
        kind = pa.float32() if name == "age" else pa.string()
        arrays[name] = pa.array([values[row] for row in order], kind)
    for label, values in label_columns.items():
        arrays[LABEL + label] = pa.array([values[row] for row in order], pa.int8())
    return pa.table(arrays)


def shared_patients(table: pa.Table) -> dict[str, int]:
    """Return how many patients each pair of splits shares, pairs without any left out."""
    members: dict[str, set[str]] = {}
    for split, patient in zip(table["split"].to_pylist(), table["patient_id"].to_pylist(), strict=True):
        members.setdefault(split, set()).add(patient)
    return in_two_splits(members)


def in_two_splits(members: Mapping[str, set[str]]) -> dict[str, int]:
    """Return how many patients each pair of splits shares, from the patients of every split."""
    names = [name for name in ("train", "val", "test") if name in members]
    pairs = {
        f"{a}/{b}": len(members[a] & members[b]) for position, a in enumerate(names) for b in names[position + 1 :]
    }
    return {pair: count for pair, count in pairs.items() if count}


def _loud(shared: Mapping[str, int]) -> list[str]:
    return [
        f"WARNING: {count} patients are in both {pair.replace('/', ' and ')}; results on this split scheme are "
        "optimistic (recorded in the card)"
        for pair, count in shared.items()
    ]


def _box_table(boxes: Sequence[tuple[str, str, float, float, float, float]], taken: Mapping[str, str]) -> pa.Table:
    key_of = {source: key for key, source in taken.items()}
    kept = sorted((key_of[source], *rest) for source, *rest in boxes if source in key_of)
    return pa.table([[row[column] for row in kept] for column in range(6)], schema=BOX_SCHEMA)


def safe_key(name: str) -> str:
    """Return a key that every tar reader takes: A-Z a-z 0-9 _ - only, at most 80 characters.

    A name that had to be changed gets 8 hex digits of its sha256 at the end, so that two names never become one.
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = _UNSAFE.sub("-", plain).strip("-")
    if plain == name and 0 < len(plain) <= _LONGEST_KEY:
        return plain
    mark = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{plain[: _LONGEST_KEY - 9]}-{mark}".lstrip("-")


def printable(name: str) -> str:
    """Return a name as valid text: bytes of a file name that are not UTF-8 are written as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def _unsafe_path(source: str) -> str | None:
    if printable(source) != source:
        return "file name is not UTF-8"
    parts = source.replace("\\", "/").split("/")
    if source.startswith(("/", "\\")) or ".." in parts or "\0" in source:
        return "path leaves the source folder"
    return None
