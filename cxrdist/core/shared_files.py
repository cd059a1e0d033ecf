"""Files that several processes need and one of them makes. Free of torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import safetensors

from cxrdist.errors import FailedError
from shards import atomic
from shards.locks import locked


def once(path: Path, fill: Callable[[Path], None]) -> Path:
    """Return `path`, written by `fill(temporary)` unless it is there; of several processes one works, the rest wait.

    A process that dies while it works gives up its lock, and the next one begins again.

    Raises:
        FailedError: no room; no half file is left.
    """
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(f".{path.name}.lock")):
        if not path.is_file():
            try:
                atomic.write_with(path, fill)
            except safetensors.SafetensorError as error:  # its own error for a full disk
                raise FailedError(f"{path} could not be written: {error}; is there space left on its disk?") from None
    return path


def digest(*parts: str) -> str:
    """A short name for what the parts say, 24 hexadecimal digits."""
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:24]
