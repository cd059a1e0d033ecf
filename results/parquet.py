"""How Parquet files are written and read here: every page carries a checksum, and none is believed without it.

A flipped bit inside a page is otherwise another number, and nobody notices. Files of earlier versions have no check
sums and are read as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from results import atomic
from results.errors import InputError

UNREADABLE = (pa.ArrowException, ValueError, KeyError)
"""What pyarrow raises on a damaged file: its own errors, and Python's where the damage is in a name or a length."""


def write(path: Path, table: pa.Table) -> None:
    """Write a table in one piece.

    Raises:
        InputError: the folder cannot be written to.
    """
    atomic.write(path, lambda temporary: pq.write_table(table, temporary, compression="zstd", write_page_checksum=True))


def read(path: Path, coded: Sequence[str] = ()) -> pa.Table:
    """Read a table, with the metadata of its file; the text columns `coded` as dictionaries, each text once.

    Raises:
        InputError: it is missing, damaged, or no Parquet file.
    """
    try:
        str(path).encode()  # results name it
        whole = pa.BufferReader(path.read_bytes())  # in one piece: a small file then takes a fifth less time
        known = pq.read_schema(whole).names if coded else []
        wanted = [name for name in coded if name in known]
        with pq.ParquetFile(whole, pre_buffer=False, page_checksum_verification=True, read_dictionary=wanted) as file:
            table = file.read(use_threads=False)
        table = table.unify_dictionaries() if coded else table
        table.validate(full=True)
    except UnicodeEncodeError:
        raise InputError(f"{path}: its path is not valid text (UTF-8), which results must name; rename it") from None
    except UNREADABLE as error:
        raise InputError(f"{path} is damaged or no Parquet file: {' '.join(str(error).split())[:200]}") from error
    except OSError as error:
        why = error.strerror or " ".join(str(error).split())[:200]
        raise InputError(f"cannot read {path}: {why}") from error
    return table
