"""The rows of a plan in a Parquet file, of which a process reads those it is about to convert."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from shards import parquet
from shards.atomic import write_with
from shards.convert.spill import forget
from shards.errors import InputError

GROUP = 1 << 13
"""Rows of a row group: what is read at once. A tar of the usual size lies in one or two."""
_AT_ONCE = 16 * GROUP
_HELD = 8
"""Row groups kept in memory: rows are asked for in order, by several threads."""


class PlanFile:
    """Rows on disk with what a plan needs of a `pyarrow.Table`."""

    def __init__(self, path: Path, split_counts: Mapping[str, int] | None = None) -> None:
        """Open a file that `write` made; `split_counts`: how many rows each split has.

        Raises:
            InputError: it is missing or damaged.
        """
        self.path, self.split_counts = path, dict(split_counts or {})
        self._file = parquet.opened(path, path)
        self.num_rows: int = self._file.metadata.num_rows
        self.schema: pa.Schema = self._file.schema_arrow
        self.column_names: list[str] = self.schema.names
        self._groups: OrderedDict[int, pa.Table] = OrderedDict()
        self._lock = threading.Lock()

    def slice(self, offset: int, length: int) -> pa.Table:
        """Return `length` rows from `offset` on, fewer at the end.

        Raises:
            InputError: they are damaged.
        """
        stop = min(offset + length, self.num_rows)
        if offset >= stop:
            return self.schema.empty_table()
        first = offset // GROUP
        with self._lock:
            read = [self._group(number) for number in range(first, (stop - 1) // GROUP + 1)]
        return pa.concat_tables(read).slice(offset - first * GROUP, stop - offset)

    def __getitem__(self, column: str) -> pa.ChunkedArray:
        """Return a whole column."""
        return parquet.column(self._file, column, self.path)

    def _group(self, number: int) -> pa.Table:
        if number in self._groups:
            self._groups.move_to_end(number)
            return self._groups[number]
        try:
            found = self._file.read_row_group(number, use_threads=False)
        except parquet.UNREADABLE as error:
            raise InputError(
                f"{self.path} is damaged: {parquet.short(error)}; remove it, and run the same command again"
            ) from error
        self._groups[number] = found
        if len(self._groups) > _HELD:
            self._groups.popitem(last=False)
        return found


def write(path: Path, table: pa.Table) -> None:
    """Write the rows of a plan as a file that is complete or absent."""

    def fill(temporary: Path) -> None:
        with parquet.writer(temporary, table.schema) as writer:
            for first in range(0, table.num_rows, _AT_ONCE):
                writer.write_table(table.slice(first, _AT_ONCE), row_group_size=GROUP)
                forget()

    write_with(path, fill)
