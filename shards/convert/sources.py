"""Finding image files, and comparing them with the rows of a table."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute

from shards.convert.inputs import note
from shards.convert.rows import (
    alphabetical,
    among,
    each,
    first_of_each,
    keep,
    left_out,
    looked_up,
    place,
    strings,
    with_column,
)
from shards.convert.sample import printable
from shards.errors import InputError

pc: Any = pyarrow.compute  # its functions are made at import, unseen by type checkers

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom")


def folder(path: str) -> Path:
    """Return an existing folder.

    Raises:
        InputError: it does not exist or is a file.
    """
    found = Path(path)
    note(found)
    if not found.is_dir():
        raise InputError(f"--src {path}: {'it is a file, not a folder' if found.exists() else 'no such folder'}")
    return found


def without_ending(name: str) -> str:
    """Return a file name or path without a known image ending; anything else after a dot belongs to the name."""
    ending = next((ending for ending in IMAGE_ENDINGS if name.lower().endswith(ending)), "")
    return name[: len(name) - len(ending)]


def find_files(root: Path, endings: Sequence[str], wanted: Callable[[str], bool] | None = None) -> list[str]:
    """Return paths (relative, with "/") of the files below `root` with one of the endings, sorted.

    Hidden files and folders and `__MACOSX` are skipped; links to folders are followed, each folder once. `wanted`
    may refuse a relative folder.
    """
    return sorted(_walk(root, endings, wanted))


def list_files(
    root: Path,
    endings: Sequence[str],
    wanted: Callable[[str], bool] | None = None,
    counts: Callable[[str], bool] | None = None,
) -> tuple[pa.ChunkedArray, list[str]]:
    """Return the files of `find_files` as a sorted column, and separately names that are not UTF-8, made printable.

    `counts` may leave out a file by its relative path.
    """
    odd: list[str] = []

    def plain() -> Iterator[str]:
        for name in _walk(root, endings, wanted):
            if counts is not None and not counts(name):
                continue
            if printable(name) == name:
                yield name
            else:
                odd.append(printable(name))

    return alphabetical(strings(plain())), sorted(odd)


def _walk(root: Path, endings: Sequence[str], wanted: Callable[[str], bool] | None) -> Iterator[str]:
    waiting = [""]
    seen: set[tuple[int, int]] = set()
    while waiting:
        inside = waiting.pop()
        note(root / inside)
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


def find_one(root: Path, patterns: Sequence[str], what: str) -> Path:
    """Return the one file of a published name below a folder, gzipped or not.

    Args:
        root: folder of the dataset.
        patterns: file names with wildcards, the first that is there is taken.
        what: what it is, for the message.

    Raises:
        InputError: there is none.
    """
    for pattern in patterns:
        found = sorted(path for end in ("", ".gz") for path in root.glob(pattern + end) if path.is_file())
        if found:
            return found[0]
    raise InputError(f"{root}: no {what} ({' or '.join(patterns)}, or .gz); --src must be the folder that holds it")


def with_files(
    rows: pa.Table,
    root: Path,
    endings: Sequence[str],
    *,
    table: str,
    allow_missing: bool,
    wanted: Callable[[str], bool] | None = None,
    any_ending: bool = False,
) -> tuple[pa.Table, list[pa.Table]]:
    """Return the rows that have an image file, `source` being where it lies, and `left_out` of what has no pair.

    Args:
        rows: `source` is the path of the image as the table gives it, relative to `root`.
        root: folder of the dataset.
        endings: of image files.
        table: file name of the table, for messages.
        allow_missing: go on where rows and files differ.
        wanted: may refuse a relative folder.
        any_ending: a file is the row's whatever its ending (PNG or JPEG copies of DICOM files, for instance); `source`
            then comes without one.

    Raises:
        InputError: they differ and `allow_missing` is False.
    """
    paths, odd = list_files(root, endings, wanted)
    names = paths
    if any_ending:
        names = strings(without_ending(path) for path in each(paths))
        first = keep(pa.table([paths, names], ["path", "name"]), first_of_each(names))
        paths, names = first["path"], first["name"]
    excluded = reconcile(rows["source"], names, table=table, allow_missing=allow_missing, odd=odd)
    rows = keep(rows, among(rows["source"], names))
    return with_column(rows, "source", looked_up(paths, place(rows["source"], names))), [excluded]


def reconcile(
    rows: pa.ChunkedArray, files: pa.ChunkedArray, *, table: str, allow_missing: bool, odd: Sequence[str] = ()
) -> pa.Table:
    """Compare the rows of a table with the files of the source.

    Args:
        rows: source names that have a row, each once.
        files: source names that have a file, each once.
        table: file name of the table, for messages.
        allow_missing: go on where they differ.
        odd: names of files that no row can name.

    Returns:
        `left_out` of every name on one side only.

    Raises:
        InputError: they differ and `allow_missing` is False; the message counts both kinds.
    """
    no_file = alphabetical(rows.filter(pa.array(~among(rows, files))))
    no_row = files.filter(pa.array(~among(files, rows)))
    no_row = alphabetical(pa.chunked_array([*no_row.chunks, pa.array(odd, pa.string())]))
    if (len(no_file) or len(no_row)) and not allow_missing:
        alike = _alike(no_file.to_pylist(), no_row.to_pylist())
        examples = "; ".join(f"first: {names[0]}" for names in (no_file, no_row) if len(names))
        raise InputError(
            f"{len(no_file)} of {len(rows)} rows of {table} have no image file and {len(no_row)} image files have "
            f"no row ({examples}){alike}; complete the download, or go on without them: --allow_missing true"
        )
    return pa.concat_tables(
        [left_out(no_file, "row without an image file"), left_out(no_row, f"image file without a row in {table}")]
    )


def _alike(no_file: Sequence[str], no_row: Sequence[str]) -> str:
    """Say how many names of the two sides differ only in case or in how accents are written (NFC, NFD)."""

    def plain(name: str) -> str:
        return unicodedata.normalize("NFC", name).casefold()

    files = {plain(name): name for name in no_row}
    pairs = [(name, files[plain(name)]) for name in no_file if plain(name) in files]
    if not pairs:
        return ""
    row, file = pairs[0]
    kind = (
        "upper and lower case"
        if unicodedata.normalize("NFC", row) != unicodedata.normalize("NFC", file)
        else ("the Unicode form of accented letters (NFC and NFD)")
    )
    return f"; {len(pairs)} of them differ only in {kind}: the table has {row!r}, the folder {file!r}"
