"""Files that are complete or absent: written under a temporary name in the same folder, synced, renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from results.errors import InputError

TEMPORARY_PREFIX = ".tmp-"
"""Start of every temporary name, so that leftovers of a killed process can be recognised."""


def write(path: Path, fill: Callable[[Path], object]) -> None:
    """Let `fill(temporary_path)` write a file, then move it to `path`.

    Raises:
        InputError: the folder cannot be written to; nothing is left behind.
    """
    path = Path(path)
    refuse_no_text(path)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(4)}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fill(temporary)
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        fix = "make room and run the same command again" if full else "name a place that can be written to"
        raise InputError(f"cannot write {path}: {error.strerror or error}; {fix}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def refuse_no_text(path: Path) -> None:
    """Refuse a path that is not valid text: results name the files they come from, and tables are text.

    Raises:
        InputError: it holds bytes that are not UTF-8.
    """
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError:
        raise InputError(f"{path}: its path is not valid text (UTF-8); choose another --out") from None


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path` in one piece; what is not valid text in it becomes escapes."""
    write(path, lambda temporary: Path(temporary).write_bytes(text.encode("utf-8", "backslashreplace")))


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` in one piece."""
    write(path, lambda temporary: Path(temporary).write_bytes(data))


def create_text(path: Path, text: str) -> bool:
    """Write `text` to `path` unless it exists; of many processes exactly one gets True.

    A hard link makes the choice atomic; on file systems without links the file is created exclusively instead.
    """
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(4)}-{path.name}")
    try:
        temporary.write_bytes(text.encode())
        sync(temporary)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:
            try:
                with open(path, "xb") as file:
                    file.write(text.encode())
                    file.flush()
                    os.fsync(file.fileno())
            except FileExistsError:
                return False
        sync(path.parent)
        return True
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Push a file's or folder's contents to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():  # some network file systems cannot sync a folder; a file must be
            raise
    finally:
        os.close(handle)
