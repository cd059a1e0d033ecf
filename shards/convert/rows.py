"""Rows of a source as columns: about a hundred bytes a sample, where Python objects take thousands.

Everything here keeps the order of the rows. Strings are compared exactly, never by hash alone. Large tables lie in
files where `shards.convert.spill.spilling` says so.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from shards.convert.sample import Sample, safe_key
from shards.convert.spill import reordered, stored, stored_column
from shards.format import LABEL, reject_schema

pc: Any = pyarrow.compute  # its functions are made at import, unseen by type checkers

_BATCH = 1 << 12
_FEW = 1 << 16
"""Below this many names memory does not matter."""
_SPLITS = ("test", "train", "val")
_TEXT = ("source", "key", "split", "patient_id", "study_id", "view", "sex")


def schema(labels: Sequence[str]) -> pa.Schema:
    """Return the columns of gathered rows."""
    fixed = [*((name, pa.string()) for name in _TEXT), ("age", pa.float32())]
    return pa.schema(fixed + [(LABEL + label, pa.int8()) for label in labels])


def gather(samples: Iterable[Sample], labels: Sequence[str], beside: Sequence[str] = ()) -> pa.Table:
    """Return samples as a table of `schema(labels)`, keys made safe; None is null.

    Names in `beside` become columns after its own, from `Sample.beside`; `shards.convert.plan.build` drops them.
    """
    columns = schema(labels)
    for name in beside:
        columns = columns.append(pa.field(name, pa.string()))
    return stored(_batches(samples, labels, beside, columns), columns)


def _batches(
    samples: Iterable[Sample], labels: Sequence[str], beside: Sequence[str], columns: pa.Schema
) -> Iterator[pa.RecordBatch]:
    source = iter(samples)
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
            *([sample.beside.get(name) for sample in some] for name in beside),
        ]
        arrays = [pa.array(column, field.type) for column, field in zip(values, columns, strict=True)]
        yield pa.record_batch(arrays, schema=columns)


def strings(names: Iterable[str]) -> pa.ChunkedArray:
    """Return names as one column, without ever holding all of them as Python objects."""
    source = iter(names)
    batches = iter(lambda: list(islice(source, _BATCH)), [])
    return stored_column((pa.array(some, pa.string()) for some in batches), pa.string())


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
    del hashes
    first = np.zeros(len(names), dtype=bool)
    first[groups(names)[1]] = True
    return first


def groups(names: pa.ChunkedArray | pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Return which names are equal: the group of each, int (N,), and where each group occurs first, int (G,).

    The groups are numbered in no order that means anything.
    """
    hashes = _hashes(names)
    order = np.argsort(hashes, kind="stable")
    hashes = hashes[order]
    new = np.ones(len(order), dtype=bool)
    np.not_equal(hashes[1:], hashes[:-1], out=new[1:])
    del hashes
    first = order[new]
    code = np.empty(len(order), dtype=np.int64)
    code[order] = np.cumsum(new) - 1
    del order, new
    later = np.ones(len(code), dtype=bool)
    later[first] = False
    if _all_equal(names, np.flatnonzero(later), code, first):
        return code, first
    encoded = pc.dictionary_encode(one(names), null_encoding="encode")  # two names of one hash: slow, and exact
    code = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return code, np.unique(code, return_index=True)[1]


def _all_equal(names: pa.ChunkedArray | pa.Array, rows: np.ndarray, code: np.ndarray, first: np.ndarray) -> bool:
    """Return whether the names of all rows are those of the first row of their groups."""
    for start in range(0, len(rows), _FEW):
        some = rows[start : start + _FEW]
        same = pc.equal(taken(names, some), taken(names, first[code[some]]))
        if not pc.all(pc.fill_null(same, False)).as_py():
            return False
    return True


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
    if mask.all():
        return table

    def kept() -> Iterator[pa.RecordBatch]:
        start = 0
        for batch in table.to_batches():
            yield batch.filter(pa.array(mask[start : start + batch.num_rows]))
            start += batch.num_rows

    return stored(kept(), table.schema)


def without_repeats(table: pa.Table, column: str) -> tuple[pa.Table, pa.Table]:
    """Return the rows where a value of `column` occurs first, and all others."""
    first = first_of_each(table[column])
    return keep(table, first), keep(table, ~first)


def among(names: pa.ChunkedArray | pa.Array, others: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Return bool (N,): True where a name is one of the others."""
    return place(names, others).is_valid().to_numpy(zero_copy_only=False)


def place(names: pa.ChunkedArray | pa.Array, others: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Return int (N,): position of each name in the others (its first there), null where it is not."""
    found = None if len(others) < _FEW else _place_many(names, others)
    return one(pc.index_in(names, value_set=one(others))) if found is None else found


def _place_many(names: pa.ChunkedArray | pa.Array, others: pa.ChunkedArray | pa.Array) -> pa.Array | None:
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
        same = pc.equal(one(names.slice(first, _FEW)), taken(others, positions[some]))
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


def taken(column: pa.ChunkedArray | pa.Array, rows: np.ndarray) -> pa.Array:
    """Return the values at some rows, int (K,); a column of many pieces is not joined for it."""
    if isinstance(column, pa.Array) or column.num_chunks == 1:
        return one(column).take(pa.array(rows))
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    pieces, start = [pa.array([], column.type)], 0
    for chunk in column.chunks:
        here = slice(*np.searchsorted(ordered, (start, start + len(chunk))))
        if here.start < here.stop:
            pieces.append(chunk.take(pa.array(ordered[here] - start)))
        start += len(chunk)
    back = np.empty(len(order), dtype=np.int64)
    back[order] = np.arange(len(order))
    return pa.concat_arrays(pieces).take(pa.array(back))


def looked_up(column: pa.ChunkedArray | pa.Array, rows: pa.Array) -> pa.ChunkedArray:
    """Return the value at each row, (K,), null where the row is null."""

    def found() -> Iterator[pa.Array]:
        for first in range(0, len(rows), _FEW):
            some = rows.slice(first, _FEW)
            values = taken(column, pc.fill_null(some, 0).to_numpy(zero_copy_only=False))
            yield pc.if_else(some.is_valid(), values, pa.scalar(None, column.type))

    return stored_column(found() if len(column) else iter([pa.nulls(len(rows), column.type)]), column.type)


def coalesced(table: pa.Table, name: str, other: str) -> pa.ChunkedArray:
    """Return a column with another's values where it is null."""
    if not table[name].null_count:
        return table[name]
    filled = (pc.coalesce(batch[name], batch[other]) for batch in table.to_batches())
    return stored_column(filled, table.schema.field(name).type)


def ranks(names: Iterable[str], count: int, digest: Callable[[str], bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Return the first 16 bytes of each name's digest as two keys for `np.lexsort` (first the weaker), uint64 (N,).

    16 bytes order 10^7 names as the whole digest does but for one chance in 10^24.
    """
    data = bytearray(16 * count)
    for number, name in enumerate(names):
        data[16 * number : 16 * number + 16] = digest(name)[:16]
    words = np.frombuffer(data, np.uint64).reshape(count, 2)
    if sys.byteorder == "little":
        words.byteswap(inplace=True)
    return words[:, 1], words[:, 0]


def final_order(table: pa.Table) -> np.ndarray:
    """Return row numbers by split, then by a hash of the key: any run of samples is a fair mixture of the source."""
    keys = ranks(each(table["key"]), table.num_rows, lambda key: hashlib.sha256(key.encode()).digest())
    split = one(pc.index_in(table["split"], value_set=pa.array(_SPLITS))).to_numpy(zero_copy_only=False)
    return np.lexsort((*keys, split.astype(np.int8)))


def alphabetical(names: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return names sorted by their UTF-8 bytes, which is the order of Python's strings."""
    order = pc.sort_indices(names).to_numpy().astype(np.int64)
    return reordered(pa.table([names], ["name"]), order)["name"]


def left_out(sources: pa.ChunkedArray | pa.Array, reasons: str | pa.ChunkedArray | pa.Array) -> pa.Table:
    """Return sources that are not converted, with the reason of all or of each."""
    if isinstance(reasons, str):
        reasons = pa.repeat(pa.scalar(reasons, pa.string()), len(sources))
    return pa.table([sources, reasons], schema=reject_schema())


def split_off(table: pa.Table, reasons: str) -> tuple[pa.Table, pa.Table]:
    """Return the rows whose column `reasons` is null, and `left_out` of the others."""
    wanted = one(table[reasons].is_null()).to_numpy(zero_copy_only=False)
    others = keep(table.select(["source", reasons]), ~wanted)
    return keep(table, wanted), left_out(others["source"], others[reasons])


def split_off_views(table: pa.Table, *, keep_unknown: bool = False) -> tuple[pa.Table, pa.Table]:
    """Return the frontal rows (PA, AP, and those of unknown view if wanted), and `left_out` of the others."""
    frontal = pc.fill_null(pc.is_in(table["view"], value_set=pa.array(["PA", "AP"])), False)
    if keep_unknown:
        frontal = pc.or_(frontal, pc.is_null(table["view"]))
    others = table.select(["source", "view"]).filter(pc.invert(frontal))
    known = pc.is_valid(others["view"])
    reasons = pc.if_else(known, "lateral view (views=frontal)", "view unknown (views=frontal)")
    return keep(table, one(frontal).to_numpy(zero_copy_only=False)), left_out(others["source"], reasons)
