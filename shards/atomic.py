"""Files that are complete or absent."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from shards.errors import FailedError


def temporary_name(folder: Path, name: str) -> Path:
    """Return an unused hidden name in `folder`; two processes never get the same one."""
    return folder / f".{name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"


def write_with(
    path: Path, write: Callable[[Path], Any], *, temporary_in: Path | None = None, durable: bool = True
) -> None:
    """Let `write(temporary)` fill a temporary file, flush it to the disk and give it its final name.

    Args:
        path: the final name; an existing file is replaced in one step.
        write: called with the temporary path.
        temporary_in: folder of the temporary file, on the same file system; None: the folder of `path`.
        durable: flush to the disk, so that the file is whole even after a power cut; False where its reader checks it.

    Raises:
        FailedError: the disk is full or the quota is used up. No file is left under either name.
    """
    temporary = temporary_name(temporary_in or path.parent, path.name)
    try:
        write(temporary)
        if durable:
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise FailedError(
                f"no space left to write {path} ({error.strerror}); make room and run the same command again"
            ) from error
        raise
    if durable:
        sync(path.parent)


def write_bytes(path: Path, pieces: Iterable[bytes], *, temporary_in: Path | None = None, durable: bool = True) -> None:
    """Write the pieces, one after the other, as one file that is complete or absent."""

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            for piece in pieces:
                file.write(piece)

    write_with(path, write, temporary_in=temporary_in, durable=durable)


def sync(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():  # some network file systems cannot sync a folder; a rename is atomic nevertheless
            raise
    finally:
        os.close(handle)
