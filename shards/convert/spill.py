"""Tables larger than memory: beyond some rows they lie in a file without a name, and are mapped from there.

Inside `with spilling(FOLDER)` whatever is gathered, filtered or ordered goes to files in that folder, whose pages the
kernel may drop; outside, everything stays in memory. A file without a name disappears with its process, however that
ends. Only arrays of a few bytes a row (hashes, row numbers, masks) are ever held in memory.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa

from shards.errors import FailedError, InputError

BATCH = 1 << 16
"""Rows of a batch in a file."""
KEPT = 1 << 18
"""Tables of at most so many rows stay in memory."""
_PILES = 256
"""Most files that are open at once while rows are put in order."""

_folder: ContextVar[Path | None] = ContextVar("spill_folder", default=None)
_mapped: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()


@contextlib.contextmanager
def spilling(folder: Path | None) -> Iterator[None]:
    """Let large tables made in the block lie in files of `folder`; None: in memory.

    Raises:
        FailedError: in the block, where the disk is full.
    """
    token = _folder.set(folder)
    try:
        yield
    except OSError as error:
        if folder is None or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise FailedError(
            f"no space left to plan in {folder} ({error.strerror}); make room and run the same command again"
        ) from error
    finally:
        _folder.reset(token)


def stored(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    """Return batches as a table, kept where `spilling` says."""
    folder, source = _folder.get(), iter(batches)
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in source:
        waiting.append(batch)
        rows += batch.num_rows
        if folder is not None and rows > KEPT:
            break
    else:
        return pa.Table.from_batches(waiting, schema)
    with tempfile.TemporaryFile(dir=folder) as file:
        with pa.ipc.new_file(file, schema) as writer:
            for table in _rebatched(waiting, source, schema):
                writer.write_table(table, max_chunksize=BATCH)
        return pa.ipc.open_file(_map(file)).read_all()


def _rebatched(
    waiting: list[pa.RecordBatch], source: Iterator[pa.RecordBatch], schema: pa.Schema
) -> Iterator[pa.Table]:
    """Yield the batches as tables of BATCH rows or a multiple, the last one excepted; `waiting` is emptied."""
    held: list[pa.RecordBatch] = []
    rows = 0
    while (batch := waiting.pop(0) if waiting else next(source, None)) is not None:
        held.append(batch)
        rows += batch.num_rows
        if rows >= BATCH:
            whole = pa.Table.from_batches(held, schema).combine_chunks()
            full = rows - rows % BATCH
            yield whole.slice(0, full)
            forget()
            held, rows = whole.slice(full).to_batches(), rows - full
    if rows:
        yield pa.Table.from_batches(held, schema).combine_chunks()


def stored_column(arrays: Iterable[pa.Array], kind: pa.DataType) -> pa.ChunkedArray:
    """Return arrays as one column, kept where `spilling` says."""
    schema = pa.schema([("values", kind)])
    return stored((pa.record_batch([array], schema=schema) for array in arrays), schema)["values"]


def reordered(table: pa.Table, order: np.ndarray) -> pa.Table:
    """Return the rows with the numbers `order`, int (K,), each at most once, in that order.

    A large table is first divided into piles of rows that are close in the new order, so that every file is read and
    written from its beginning to its end, and one pile at a time is in memory.
    """
    folder = _folder.get()
    if folder is None or len(order) <= KEPT:
        return table.take(pa.array(order))
    rank = np.full(table.num_rows, -1, dtype=np.int64)
    rank[order] = np.arange(len(order))
    length = max(KEPT, -(-len(order) // _PILES))
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile(dir=folder)) for _ in range(0, len(order), length)]
        _deal(table, rank, length, files)
        del rank
        return stored(_piled(files), table.schema)


def _deal(table: pa.Table, rank: np.ndarray, length: int, files: Sequence[IO[bytes]]) -> None:
    """Write every row, and its rank as the last column, to the file of its pile."""
    schema = table.schema.append(pa.field("rank of row", pa.int64()))
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(pa.ipc.new_stream(file, schema)) for file in files]
        for first in range(0, table.num_rows, BATCH):
            ranks = rank[first : first + BATCH]
            pile = ranks // length  # -1 for rows that are left out
            by_pile = np.argsort(pile, kind="stable")
            bounds = np.searchsorted(pile[by_pile], np.arange(len(files) + 1))
            some = table.slice(first, BATCH).append_column(schema[-1], pa.array(ranks)).combine_chunks()
            dealt = some.take(pa.array(by_pile))
            for writer, start, stop in zip(writers, bounds, bounds[1:], strict=False):
                if start < stop:
                    writer.write_table(dealt.slice(start, stop - start))
            forget()


def _piled(files: Sequence[IO[bytes]]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of the piles in the new order."""
    for file in files:
        file.flush()
        file.seek(0)
        table = pa.ipc.open_stream(file).read_all().combine_chunks()
        ranks = table.column(table.num_columns - 1).to_numpy()
        yield from table.remove_column(table.num_columns - 1).take(pa.array(np.argsort(ranks))).to_batches()


def contiguous(column: pa.ChunkedArray) -> pa.Array:
    """Return a column in one piece, in a file where `spilling` says and it is long.

    Raises:
        InputError: it holds more text than one piece can, 2 GiB.
    """
    folder = _folder.get()
    if column.num_chunks == 1:
        return column.chunk(0)
    if folder is None or len(column) <= KEPT:
        return _joined(column)
    with tempfile.TemporaryFile(dir=folder) as file:
        schema = pa.schema([("values", column.type)])
        with pa.ipc.new_file(file, schema) as writer:
            writer.write_batch(pa.record_batch([_joined(column)], schema=schema))
        forget()
        return pa.ipc.open_file(_map(file)).read_all()["values"].chunk(0)


def _joined(column: pa.ChunkedArray) -> pa.Array:
    try:
        return pa.concat_arrays(column.chunks or [pa.array([], column.type)])
    except pa.ArrowInvalid as error:
        raise InputError(
            f"{len(column)} rows hold more than 2 GiB of text in one column, more than one conversion can plan: "
            "convert them in several shard sets"
        ) from error


def forget() -> None:
    """Give back the memory of the mapped pages; they are read again when they are needed."""
    for mapped in list(_mapped):
        mapped.madvise(mmap.MADV_DONTNEED)


def _map(file: IO[bytes]) -> Any:
    file.flush()
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    _mapped.add(mapped)
    return pa.py_buffer(mapped)
