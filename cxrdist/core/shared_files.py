"""Files that several processes need and one of them makes. Free of torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from shards import atomic
from shards.locks import locked


def once(path: Path, fill: Callable[[Path], None]) -> Path:
    """Return `path`, written by `fill(temporary)` unless it is there; of several processes one works, the rest wait.

    A process that dies while it works gives up its lock, and the next one begins again.
    """
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(f".{path.name}.lock")):
        if not path.is_file():
            atomic.write_with(path, fill)
    return path


def digest(*parts: str) -> str:
    """A short name for what the parts say, 24 hexadecimal digits."""
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:24]
