"""Finding image files and reading tables, with errors that say which file and which line."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute

from shards.errors import InputError
from shards.rows import among, strings
from shards.sample import printable

pc: Any = pyarrow.compute  # its functions are made at import, unseen by type checkers

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom")


def folder(path: str) -> Path:
    """Return an existing folder.

    Raises:
        InputError: it does not exist or is a file.
    """
    found = Path(path)
    if not found.is_dir():
        raise InputError(f"--src {path}: {'it is a file, not a folder' if found.exists() else 'no such folder'}")
    return found


def find_files(root: Path, endings: Sequence[str], wanted: Callable[[str], bool] | None = None) -> list[str]:
    """Return paths (relative, with "/") of the files below `root` with one of the endings, sorted.

    Hidden files and folders and `__MACOSX` are passed over; links to folders are followed, each folder once. `wanted`
    may refuse a relative folder.
    """
    return sorted(_walk(root, endings, wanted))


def list_files(
    root: Path, endings: Sequence[str], wanted: Callable[[str], bool] | None = None
) -> tuple[pa.Array, list[str]]:
    """Return what `find_files` does as a sorted array, and apart the names that are not UTF-8, made printable."""
    odd: list[str] = []

    def plain() -> Iterator[str]:
        for name in _walk(root, endings, wanted):
            if printable(name) == name:
                yield name
            else:
                odd.append(printable(name))

    names = strings(plain())
    return names.take(pc.sort_indices(names)), sorted(odd)


def _walk(root: Path, endings: Sequence[str], wanted: Callable[[str], bool] | None) -> Iterator[str]:
    waiting = [""]
    seen: set[tuple[int, int]] = set()
    while waiting:
        inside = waiting.pop()
        facts = os.stat(root / inside)
        if (facts.st_dev, facts.st_ino) in seen:  # a link back to a folder above would go round for ever
            continue
        seen.add((facts.st_dev, facts.st_ino))
        with os.scandir(root / inside) as entries:
            for entry in entries:
                name = f"{inside}{entry.name}"
                if entry.name.startswith(".") or entry.name == "__MACOSX":
                    continue
                if entry.is_dir():
                    if wanted is None or wanted(name):
                        waiting.append(name + "/")
                elif entry.name.lower().endswith(tuple(endings)):
                    yield name


def read_table(path: Path, required: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line number, row) of a CSV file; byte-order mark, CRLF and a trailing comma are taken as they come.

    Raises:
        InputError: unreadable, not UTF-8, a required column missing, or a row of another width.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file)
            header = [cell.strip() for cell in next(lines, [])]
            missing = [name for name in required if name not in header]
            if missing:
                absent, there = ", ".join(map(repr, missing)), ", ".join(header) or "(none)"
                raise InputError(f"{path}: no column {absent}; its columns are {there}")
            last = lines.line_num
            for cells in lines:
                first, last = last + 1, lines.line_num
                if not any(cells):
                    continue
                if len(cells) < len(header) and any(name for name in header[len(cells) :]):
                    open_quote = f" to {last} (a quotation mark left open?)" if last > first else ""
                    raise InputError(
                        f"{path}, line {first}{open_quote}: {len(cells)} cells, the header has {len(header)}"
                    )
                yield lines.line_num, dict(zip(header, cells, strict=False))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a UTF-8 CSV file ({error})") from error


def read_names(path: Path) -> pa.Array:
    """Return the lines of a list file, stripped, empty ones left out."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            return strings(line.strip() for line in file if line.strip())
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a UTF-8 text file ({error})") from error


def reconcile(
    rows: pa.ChunkedArray, files: pa.Array, *, table: str, allow_missing: bool, odd: Sequence[str] = ()
) -> list[tuple[str, str]]:
    """Compare the rows of a table with the files of the source.

    Args:
        rows: source names that have a row, each once.
        files: source names that have a file, each once.
        table: file name of the table, for messages.
        allow_missing: go on where they differ.
        odd: names of files that no row can name.

    Returns:
        (source, reason) of every name on one side only.

    Raises:
        InputError: they differ and `allow_missing` is False; the message counts both kinds.
    """
    no_file = sorted(rows.filter(pa.array(~among(rows, files))).to_pylist())
    no_row = sorted([*files.filter(pa.array(~among(files, rows))).to_pylist(), *odd])
    if (no_file or no_row) and not allow_missing:
        examples = "; ".join(f"first: {names[0]}" for names in (no_file, no_row) if names)
        raise InputError(
            f"{len(no_file)} of {len(rows)} rows of {table} have no image file and {len(no_row)} image files have "
            f"no row ({examples}); complete the download, or go on without them: --allow_missing true"
        )
    return [(name, "row without an image file") for name in no_file] + [
        (name, f"image file without a row in {table}") for name in no_row
    ]
