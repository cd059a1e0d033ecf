"""Reading tables of text: CSV in its dialects, with errors that say which file and which line."""

from __future__ import annotations

import codecs
import contextlib
import csv
import functools
import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pyarrow as pa

from shards.convert.inputs import note
from shards.convert.rows import strings
from shards.errors import InputError

DELIMITERS = (",", ";", "\t", "|")
"""What may stand between two cells where the user does not say, tried in this order."""
NOT_LATIN = re.compile(rb"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]")
"""Bytes that no text in Latin-1 holds; a file with one of them is damaged or in another encoding."""
_PIECE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How a table is written."""

    encoding: str
    """Name of a text encoding that Python knows."""
    delimiter: str
    """One character."""

    def note(self, path: Path) -> list[str]:
        """Return a line for the user where the dialect had to be recognised."""
        odd = []
        if self.encoding != "utf-8-sig":
            odd.append(f"as {self.encoding}")
        if self.delimiter != ",":
            odd.append(f"with {'tabs' if self.delimiter == chr(9) else repr(self.delimiter)} between its cells")
        return [f"{path.name} is read {' and '.join(odd)}"] if odd else []


def dialect(path: Path, required: Sequence[str], delimiter: str | None = None, encoding: str | None = None) -> Dialect:
    """Return how a table is written, from its bytes and its header where the user does not say.

    UTF-8 (with or without byte-order mark), UTF-16 with one, and Latin-1 are recognised by the bytes of the whole file;
    of `DELIMITERS` the first is taken that gives all `required` headings.

    Raises:
        InputError: no such file, an encoding that does not fit, or a required heading that is missing.
    """
    text = _known(encoding) if encoding else _encoding(path)
    headers: dict[str, list[str]] = {}
    for mark in [delimiter] if delimiter else DELIMITERS:
        with _readable(path, text), _open(path, text) as file:
            headers[mark] = [cell.strip() for cell in next(csv.reader(file, delimiter=mark), [])]
        if all(name in headers[mark] for name in required):
            return Dialect(encoding=text, delimiter=mark)
    best = max(headers.values(), key=lambda header: (sum(name in header for name in required), len(header)))
    absent = ", ".join(repr(name) for name in required if name not in best)
    raise InputError(f"{path}: no column {absent}; its columns are {', '.join(best) or '(none)'}")


def read_table(
    path: Path, required: Sequence[str], delimiter: str | None = None, encoding: str | None = None
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line number, row) of a CSV file, gzipped where its name ends with .gz.

    A byte-order mark, CRLF, blank lines and blank cells beyond the header are taken as they come.

    Raises:
        InputError: unreadable, another encoding, a required column missing, a heading that occurs twice, or a row of
            another width.
    """
    found = dialect(path, required, delimiter, encoding)
    with _readable(path, found.encoding), _open(path, found.encoding) as file:
        lines = csv.reader(file, delimiter=found.delimiter)
        header = [cell.strip() for cell in next(lines, [])]
        _check_header(header, path)
        last = lines.line_num
        for cells in lines:
            first, last = last + 1, lines.line_num
            if not any(cells):
                continue
            _check_width(cells, header, path, first, last, found.delimiter)
            yield last, dict(zip(header, cells, strict=False))


def _check_header(header: Sequence[str], path: Path) -> None:
    for name in header:
        if name and header.count(name) > 1:
            columns = [number for number, other in enumerate(header, 1) if other == name]
            raise InputError(f"{path}: the heading {name!r} heads columns {columns[0]} and {columns[1]}; rename one")


def _check_width(cells: list[str], header: list[str], path: Path, first: int, last: int, delimiter: str) -> None:
    open_quote = f" to {last} (a quotation mark left open?)" if last > first else ""
    if len(cells) < len(header) and any(header[len(cells) :]):
        raise InputError(f"{path}, line {first}{open_quote}: {len(cells)} cells, the header has {len(header)}")
    if any(cell.strip() for cell in cells[len(header) :]):
        raise InputError(
            f"{path}, line {first}{open_quote}: {len(cells)} cells, the header has {len(header)} (a cell that holds "
            f"{delimiter!r} needs quotation marks around it)"
        )


def read_names(path: Path) -> pa.ChunkedArray:
    """Return the lines of a list file, stripped, empty ones left out."""
    with _readable(path, "utf-8-sig"), open(path, encoding="utf-8-sig") as file:
        return strings(line.strip() for line in file if line.strip())


def _open(path: Path, encoding: str) -> IO[str]:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding=encoding, newline="")
    return open(path, encoding=encoding, newline="")


@contextlib.contextmanager
def _readable(path: Path, encoding: str) -> Iterator[None]:
    """Turn what can go wrong while a text file is read into a one-line error."""
    name = encoding.removesuffix("-sig").upper()
    note(path)
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except UnicodeError as error:
        fix = "say how it is written: --encoding latin-1 (or cp1252, utf-16, ...)"
        raise InputError(f"{path} is not a {name} file ({error}); {fix}") from error
    except csv.Error as error:
        raise InputError(f"{path} is not a {name} CSV file ({error})") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is not a whole gzip file ({error})") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error})") from error


def _known(encoding: str) -> str:
    try:
        return codecs.lookup(encoding).name
    except LookupError as error:
        raise InputError(f"--encoding {encoding}: unknown; Python's names are meant, e.g. latin-1, cp1252") from error


def _encoding(path: Path) -> str:
    with _readable(path, "utf-8-sig"):
        facts = path.stat()
        return _encoding_of(path, facts.st_size, facts.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _encoding_of(path: Path, size: int, time: int) -> str:
    """Return the encoding of a file; size and time make sure that a changed file is read again."""
    with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else open(path, "rb") as file:
        decoder, utf8, latin = codecs.getincrementaldecoder("utf-8")(), True, True
        piece = file.read(_PIECE)
        if piece.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return "utf-16"
        while piece and (utf8 or latin):
            latin = latin and not NOT_LATIN.search(piece)
            if utf8:
                try:
                    decoder.decode(piece)
                except UnicodeDecodeError:
                    utf8 = False
            piece = file.read(_PIECE)
    return "utf-8-sig" if utf8 or not latin else "latin-1"
