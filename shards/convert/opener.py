"""How a worker gets at a source. Apart from the plan, so that worker processes start without pyarrow."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


class Opener(Protocol):
    """Gives the content of a source: file bytes, or a uint8 (H, W) or (H, W, 3) array. Must be picklable."""

    def __call__(self, source: str) -> Any:
        """Return the content of one source."""
        ...

    def prepare(self, work: Path) -> None:
        """Make ready what the workers share, in a folder that lives as long as the conversion."""
        ...

    def stamp(self, source: str) -> Stamp:
        """Return what differs once the file behind a source has changed."""
        ...


Stamp = tuple[int, int, int]
"""Size (bytes), time of the last change of the content and of the file itself (ns); -1 each where there is no file."""


def file_stamp(path: str | Path) -> Stamp:
    """Return the stamp of a file."""
    try:
        found = os.stat(path)
    except OSError:
        return -1, -1, -1
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


@dataclass(frozen=True)
class FileOpener:
    """Reads files below a root folder."""

    root: str

    def __call__(self, source: str) -> bytes:
        """Return the bytes of one file."""
        return (Path(self.root) / source).read_bytes()

    def prepare(self, work: Path) -> None:
        """Nothing to do for files."""

    def stamp(self, source: str) -> Stamp:
        """Return the stamp of the file."""
        return file_stamp(f"{self.root}/{source}")
