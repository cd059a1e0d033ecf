"""Rows of a source as columns: about a hundred bytes a sample, where Python objects take thousands.

Everything here keeps the order of the rows. Strings are compared exactly, never by hash alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from shards.format import LABEL
from shards.sample import Sample, safe_key

pc: Any = pyarrow.compute  # its functions are made at import, unseen by type checkers

_BATCH = 1 << 12
_FEW = 1 << 16
"""Below this many names memory is no matter."""
_SPLITS = ("test", "train", "val")
_TEXT = ("source", "key", "split", "patient_id", "study_id", "view", "sex")


def schema(labels: Sequence[str]) -> pa.Schema:
    """Return the columns of gathered rows."""
    fixed = [*((name, pa.string()) for name in _TEXT), ("age", pa.float32())]
    return pa.schema(fixed + [(LABEL + label, pa.int8()) for label in labels])


def gather(samples: Iterable[Sample], labels: Sequence[str]) -> pa.Table:
    """Return samples as a table of `schema(labels)`, keys made safe; None is null."""
    columns, batches, source = schema(labels), [], iter(samples)
    while some := list(islice(source, _BATCH)):
        values: list[list[Any]] = [
            [sample.source for sample in some],
            [safe_key(sample.key) for sample in some],
            [sample.split for sample in some],
            [sample.patient_id for sample in some],
            [sample.study_id for sample in some],
            [sample.view for sample in some],
            [sample.sex for sample in some],
            [sample.age for sample in some],
            *([sample.labels.get(label) for sample in some] for label in labels),
        ]
        arrays = [pa.array(column, field.type) for column, field in zip(values, columns, strict=True)]
        batches.append(pa.record_batch(arrays, schema=columns))
    return pa.Table.from_batches(batches, columns)


def strings(names: Iterable[str]) -> pa.Array:
    """Return names as one array, without ever holding all of them as Python objects."""
    batches, source = [], iter(names)
    while some := list(islice(source, _BATCH)):
        batches.append(pa.array(some, pa.string()))
    return pa.concat_arrays(batches) if batches else pa.array([], pa.string())


def one(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Return a column as one array."""
    if isinstance(column, pa.Array):
        return column
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks or [pa.array([], column.type)])


def first_of_each(names: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Return bool (N,): True where a name occurs for the first time."""
    hashes = _hashes(names)
    hashes.sort()
    if (hashes[1:] != hashes[:-1]).all():  # so no two names are equal, at a quarter of the memory of looking closer
        return np.ones(len(names), dtype=bool)
    codes = one(names).dictionary_encode().indices.to_numpy(zero_copy_only=False)
    first = np.zeros(len(codes), dtype=bool)
    seen = np.maximum.accumulate(codes) if len(codes) else codes  # codes count up in order of first appearance
    first[:1] = True
    first[1:] = codes[1:] > seen[:-1]
    return first


@dataclass
class Gathered:
    """A table that its receiver takes over, so that no caller keeps a second one alive meanwhile."""

    table: pa.Table | None

    def take(self) -> pa.Table:
        """Return the table and let go of it."""
        table, self.table = self.table, None
        assert table is not None
        return table


def keep(table: pa.Table, mask: np.ndarray) -> pa.Table:
    """Return the rows where the mask is True; the table itself where it is so everywhere."""
    return table if mask.all() else table.filter(pa.array(mask))


def without_repeats(table: pa.Table, column: str) -> tuple[pa.Table, pa.Table]:
    """Return the rows where a value of `column` occurs first, and all others."""
    first = first_of_each(table[column])
    return keep(table, first), keep(table, ~first)


def among(names: pa.ChunkedArray | pa.Array, others: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Return bool (N,): True where a name is one of the others."""
    return place(names, others).is_valid().to_numpy(zero_copy_only=False)


def place(names: pa.ChunkedArray | pa.Array, others: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Return int (N,): position of each name in the others (its first there), null where it is not."""
    others = one(others)
    found = None if len(others) < _FEW else _place_many(names, others)
    return one(pc.index_in(names, value_set=others)) if found is None else found


def _place_many(names: pa.ChunkedArray | pa.Array, others: pa.Array) -> pa.Array | None:
    """Do as `place` by sorted hashes, in a quarter of its memory; None where two different names have one hash."""
    known = _hashes(others)
    order = np.argsort(known, kind="stable")
    known = known[order]
    wanted = _hashes(names)
    at = np.searchsorted(known, wanted)
    at[at == len(known)] = 0
    hit = known[at] == wanted
    del known, wanted
    positions = order[at]
    for first in range(0, len(names), _FEW):
        some = slice(first, first + _FEW)
        same = pc.equal(one(names.slice(first, _FEW)), others.take(pa.array(positions[some])))
        if (hit[some] & ~same.to_numpy(zero_copy_only=False)).any():
            return None
    return pa.array(positions, mask=~hit)


def _hashes(names: pa.ChunkedArray | pa.Array) -> np.ndarray:
    return np.fromiter(map(hash, each(names)), np.int64, len(names))


def with_column(table: pa.Table, name: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    """Return the table with one column replaced."""
    return table.set_column(table.schema.get_field_index(name), name, values)


def each(column: pa.ChunkedArray | pa.Array) -> Iterator[Any]:
    """Yield the values as Python objects, few at a time."""
    for first in range(0, len(column), _BATCH):
        yield from column.slice(first, _BATCH).to_pylist()


def ranks(names: Iterable[str], count: int, digest: Callable[[str], bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Return the first 16 bytes of each name's digest as two keys for `np.lexsort` (first the weaker), uint64 (N,).

    16 bytes order 10^7 names as the whole digest does but for one chance in 10^24.
    """
    data = bytearray(16 * count)
    for number, name in enumerate(names):
        data[16 * number : 16 * number + 16] = digest(name)[:16]
    words = np.frombuffer(data, ">u8").reshape(count, 2).astype(np.uint64)
    return words[:, 1], words[:, 0]


def final_order(table: pa.Table) -> np.ndarray:
    """Return row numbers by split, then by a hash of the key: any run of samples is a fair mixture of the source."""
    keys = ranks(each(table["key"]), table.num_rows, lambda key: hashlib.sha256(key.encode()).digest())
    split = place(table["split"], pa.array(_SPLITS)).to_numpy(zero_copy_only=False)
    return np.lexsort((*keys, split))


def sort(columns: dict[str, pa.ChunkedArray], order: np.ndarray) -> pa.Table:
    """Return columns with their rows in another order, each in one piece; `columns` is emptied on the way."""
    rows = pa.array(order)
    return pa.table({name: one(columns.pop(name).take(rows)) for name in list(columns)})


def split_off_views(table: pa.Table, *, keep_unknown: bool = False) -> tuple[pa.Table, list[tuple[str, str]]]:
    """Return the frontal rows (PA, AP, and those of unknown view if wanted), and (source, reason) of the others."""
    frontal = pc.fill_null(pc.is_in(table["view"], value_set=pa.array(["PA", "AP"])), False)
    if keep_unknown:
        frontal = pc.or_(frontal, pc.is_null(table["view"]))
    others = table.filter(pc.invert(frontal))
    kinds = pc.fill_null(others["view"], "").to_pylist()
    reasons = ["lateral view (views=frontal)" if kind else "view unknown (views=frontal)" for kind in kinds]
    return table.filter(frontal), list(zip(others["source"].to_pylist(), reasons, strict=True))
