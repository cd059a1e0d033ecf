"""How a worker gets at a source. Apart from the plan, so that worker processes start without pyarrow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

LABEL = "label_"
"""Label columns of the index begin with it."""


class Opener(Protocol):
    """Gives the content of a source: file bytes, or a uint8 (H, W) or (H, W, 3) array. Must be picklable."""

    def __call__(self, source: str) -> Any:
        """Return the content of one source."""
        ...

    def prepare(self, work: Path) -> None:
        """Make ready what the workers share, in a folder that lives as long as the conversion."""
        ...


@dataclass(frozen=True)
class FileOpener:
    """Reads files below a root folder."""

    root: str

    def __call__(self, source: str) -> bytes:
        """Return the bytes of one file."""
        return (Path(self.root) / source).read_bytes()

    def prepare(self, work: Path) -> None:
        """Nothing to do for files."""
