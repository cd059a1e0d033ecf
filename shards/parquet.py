"""How Parquet files are written and read here: every page carries a checksum, and none is believed without it.

A flipped bit inside a page is otherwise another number, and nobody notices. Files of earlier versions have no check
sums and are read as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from shards.errors import InputError

UNREADABLE = (pa.ArrowException, OSError, ValueError, KeyError)
"""What pyarrow raises on a damaged file: its own errors, and Python's where the damage is in a name or a length."""


def writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """A writer of row groups; use it in a `with` statement."""
    return pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True)


def write_table(path: Path, table: pa.Table) -> None:
    """Write a whole table."""
    pq.write_table(table, path, compression="zstd", write_page_checksum=True)


def opened(source: Path | pa.Buffer, where: Path) -> pq.ParquetFile:
    """A file (memory-mapped) or its bytes, to be read by column; `where` names it in errors.

    Raises:
        InputError: it is missing or no Parquet file.
    """
    try:
        if isinstance(source, pa.Buffer):
            return pq.ParquetFile(pa.BufferReader(source), page_checksum_verification=True)
        return pq.ParquetFile(source, memory_map=True, page_checksum_verification=True)
    except FileNotFoundError:
        raise InputError(f"{where} does not exist: is this a shard set (made by `cxrdist shard`)?") from None
    except UnicodeEncodeError:
        raise InputError(f"{where}: its path is not valid text (UTF-8); rename the folder") from None
    except UNREADABLE as error:
        raise InputError(f"{where} is not a readable Parquet file: {short(error)}") from error


def column(file: pq.ParquetFile, name: str, where: Path) -> pa.ChunkedArray:
    """One column.

    Raises:
        InputError: it is damaged.
    """
    try:
        found = file.read(columns=[name], use_threads=False).column(0)
        found.validate(full=pa.types.is_string(found.type) or pa.types.is_large_string(found.type))
    except UNREADABLE as error:
        raise InputError(f"{where} is damaged: column {name} cannot be read ({short(error)})") from error
    return found


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A whole table, or some of its columns.

    Raises:
        InputError: it is missing, damaged, no Parquet file, or lacks a column.
    """
    with opened(path, path) as file:
        if lost := [name for name in columns or () if name not in file.schema_arrow.names]:
            raise InputError(f"{path} lacks the column(s) {', '.join(lost)}")
        try:
            table = file.read(columns=None if columns is None else list(columns), use_threads=False)
            table.validate(full=True)
        except UNREADABLE as error:
            raise InputError(f"{path} is damaged: {short(error)}") from error
    return table


def short(error: BaseException) -> str:
    """An error's text on one line of moderate length."""
    return " ".join(str(error).split())[:200] or type(error).__name__
