"""A table beside the one of images, joined by a key: the labels of a study, the split of an image.

Its rows are columns, in a file where `shards.convert.spill.spilling` says so, as those of the images are: as Python
objects they would take thousands of bytes each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from shards.convert.rows import among, first_of_each, keep, looked_up, one, place, with_column
from shards.convert.spill import stored
from shards.errors import InputError
from shards.format import LABEL

pc: Any = pyarrow.compute  # its functions are made at import, unseen by type checkers

Entry = tuple[int, str, Sequence[Any]]
"""Line of the file, key, and the values in the order of the columns."""
_BATCH = 1 << 12
_KEY, _LINE = "key of row", "line of row"


@dataclass(frozen=True)
class SideTable:
    """Values by key, every key once."""

    path: Path
    table: pa.Table

    @property
    def keys(self) -> pa.ChunkedArray:
        """Every key."""
        return self.table[_KEY]

    def joined(self, rows: pa.Table, by: str) -> tuple[pa.Table, np.ndarray]:
        """Return rows with this table's columns in place of their own of the same names.

        Args:
            rows: as `shards.convert.rows.gather` makes them.
            by: column of them that holds keys.

        Returns:
            the rows, null where a key is not in this table, and bool (N,): where it is.
        """
        at = place(rows[by], self.keys)
        for name in self.table.column_names:
            if name not in (_KEY, _LINE):
                rows = with_column(rows, name, looked_up(self.table[name], at))
        return rows, one(at.is_valid()).to_numpy(zero_copy_only=False)

    def unused(self, rows: pa.Table, by: str) -> pa.ChunkedArray:
        """Return the keys that no row has."""
        return self.keys.filter(pa.array(~among(self.keys, rows[by])))


def labels_schema(labels: Sequence[str]) -> pa.Schema:
    """Return the columns of a table of labels."""
    return pa.schema([(LABEL + label, pa.int8()) for label in labels])


def side_table(path: Path, entries: Iterable[Entry], columns: pa.Schema, *, named: str, other: str) -> SideTable:
    """Return the rows of a table by their keys.

    Args:
        path: of the file, for messages.
        entries: its rows; one that only repeats another is ignored.
        columns: of the values, named as the columns of gathered rows that they replace.
        named: what a key is the name of, for messages.
        other: in what two rows of one key may contradict each other, for messages: "other labels".

    Raises:
        InputError: two rows of one key say different things.
    """
    schema = pa.schema([(_KEY, pa.string()), (_LINE, pa.int64()), *columns])
    table = stored(_batches(entries, schema), schema)
    first = first_of_each(table[_KEY])
    if first.all():
        return SideTable(path, table)
    kept, again = keep(table, first), keep(table, ~first)
    _refuse_contradiction(path, kept, again, columns.names, f"has another row with {other}", named)
    return SideTable(path, kept)


def _batches(entries: Iterable[Entry], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    source = iter(entries)
    while some := list(islice(source, _BATCH)):
        columns = [[key for _, key, _ in some], [line for line, _, _ in some]]
        columns += [[values[column] for _, _, values in some] for column in range(len(schema) - 2)]
        arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
        yield pa.record_batch(arrays, schema=schema)


def _refuse_contradiction(
    path: Path, kept: pa.Table, again: pa.Table, names: Sequence[str], has: str, named: str
) -> None:
    at = place(again[_KEY], kept[_KEY])
    differs = np.zeros(again.num_rows, dtype=bool)
    for name in names:
        mine, before = one(again[name]), one(looked_up(kept[name], at))
        both_null = pc.and_(pc.is_null(mine), pc.is_null(before))
        differs |= ~one(pc.or_(pc.fill_null(pc.equal(mine, before), False), both_null)).to_numpy(zero_copy_only=False)
    if differs.any():
        row = int(np.flatnonzero(differs)[0])
        raise InputError(f"{path}, line {again[_LINE][row].as_py()}: {named} {again[_KEY][row].as_py()} {has}")
