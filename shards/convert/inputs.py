"""What a plan was made from: the tables and folders that were read, by size and times, so that a change is noticed.

A folder's time changes when a name in it comes or goes; a name that is not there is noted too.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from pathlib import Path

import pyarrow as pa

from shards.convert.opener import file_stamp

SCHEMA = pa.schema([("path", pa.string()), *((name, pa.int64()) for name in ("size", "content", "file"))])
"""Absolute path and `shards.convert.opener.Stamp` of what was read."""
_AT_ONCE = 16
"""Threads that ask a (network) file system for sizes and times."""
_BATCH = 1024

_noting: ContextVar[Inputs | None] = ContextVar("inputs", default=None)


class Inputs:
    """Files and folders noted while a plan is made."""

    def __init__(self, without: Path) -> None:
        """`without`: a folder whose changes do not count, the conversion's own."""
        self.without = os.path.abspath(without)
        self._waiting: list[tuple[str, int, int, int]] = []
        self._batches: list[pa.RecordBatch] = []

    def add(self, path: str | Path) -> None:
        """Note a file or folder as it is now, before it is read."""
        name = os.path.abspath(path)
        if name != self.without and not name.startswith(self.without + os.sep):
            self._waiting.append((os.fsencode(name).decode("utf-8", "backslashreplace"), *file_stamp(name)))
        if len(self._waiting) >= _BATCH:
            self._flush()

    def table(self) -> pa.Table:
        """Return what was noted, in the columns of SCHEMA."""
        self._flush()
        return pa.Table.from_batches(self._batches, SCHEMA)

    def _flush(self) -> None:
        columns = [list(column) for column in zip(*self._waiting, strict=True)] or [[], [], [], []]
        self._batches.append(pa.record_batch(columns, schema=SCHEMA))
        self._waiting = []


@contextlib.contextmanager
def noting(inputs: Inputs) -> Iterator[None]:
    """Collect in `inputs` what is noted in the block."""
    token = _noting.set(inputs)
    try:
        yield
    finally:
        _noting.reset(token)


def note(path: str | Path) -> None:
    """Note that the plan depends on a file or folder; call it before reading."""
    inputs = _noting.get()
    if inputs is not None:
        inputs.add(path)


def unchanged(table: pa.Table) -> bool:
    """Whether everything noted is as it was; a name that is not UTF-8 never is."""

    def same(batch: pa.RecordBatch) -> bool:
        return all(file_stamp(path) == tuple(stamp) for path, *stamp in zip(*batch.to_pydict().values(), strict=True))

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return all(pool.map(same, table.to_batches(max_chunksize=_BATCH)))
