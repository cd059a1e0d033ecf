"""The folder of a sweep: its cells, each a run folder named by the trial's signature, and the ledger on disk.

    OUT/sweep.json            the spec as resolved last, and every cell it asks for
    OUT/cells/SIGNATURE/      one run folder a cell; done when its done.json exists
    OUT/failures/SIGNATURE.json   what went wrong, a line per attempt; gone once the cell is done
    OUT/logs/                 what trials and Ray printed
    OUT/cache/                decoded images and features that trials share
    OUT/array/                jobs of executor slurm-array
    OUT/backbones/            frozen networks that the heads of linear cells stand on

Free of torch and ray, so that a complete sweep answers at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxrdist.errors import InputError
from cxrdist.finetune.config import FinetuneConfig
from results import atomic
from results.run import Run


@dataclass(frozen=True, kw_only=True)
class SweepCell:
    """One trial of a sweep."""

    values: dict[str, Any]
    """What the axes say here, dotted key -> value, as the spec spelled it."""
    config: FinetuneConfig
    """Resolved; `out` is the cell's folder."""
    signature: str
    """Names the folder."""

    @property
    def run(self) -> Run:
        """The cell's run folder."""
        return Run(self.config.out)

    @property
    def name(self) -> str:
        """The axes' values on one line."""
        return " ".join(f"{key}={_brief(value)}" for key, value in self.values.items()) or "the only cell"


def _brief(value: Any) -> str:
    text = str(value)
    return "/".join(Path(text).parts[-2:]) if "/" in text else text


@dataclass(frozen=True)
class SweepFolder:
    """The folder of a sweep; what is done and what failed is read from it and nothing else."""

    out: Path

    @property
    def spec(self) -> Path:
        """The resolved spec and its cells."""
        return self.out / "sweep.json"

    @property
    def cache(self) -> Path:
        """Decoded images and features."""
        return self.out / "cache"

    @property
    def backbones(self) -> Path:
        """Frozen networks."""
        return self.out / "backbones"

    @property
    def logs(self) -> Path:
        """What trials and Ray print."""
        return self.out / "logs"

    def cell_folder(self, name: str) -> Path:
        """The run folder of a signature."""
        return self.out / "cells" / name

    def log(self, name: str) -> Path:
        """The log of a cell."""
        return self.logs / f"{name}.log"

    def claim(self) -> None:
        """Make the folder, or accept one that a sweep made.

        Raises:
            InputError: it holds something else, or cannot be written.
        """
        self.refuse_foreign()
        try:
            for folder in (self.out, self.logs, self.cache, self.out / "cells", self.out / "failures"):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write in {self.out}: {error.strerror}; choose another --out") from error

    def refuse_foreign(self) -> None:
        """Refuse a place where a sweep would write over something else; nothing is written.

        Raises:
            InputError: it is a file, or holds something that is not a sweep's.
        """
        if self.out.exists() and not self.out.is_dir():
            raise InputError(f"{self.out} is a file, not a folder; choose another --out")
        if self.out.is_dir() and not self.spec.is_file():
            ours = {
                "cache",
                "backbones",
                "logs",
                "cells",
                "submission",
                "failures",
                "array",
                "sweep.lock",
                "tracking.log",
            }
            foreign = [entry.name for entry in self.out.iterdir() if entry.name not in ours and entry.name[0] != "."]
            if foreign:
                raise InputError(f"{self.out} holds {foreign[0]} and is not a sweep; choose an empty or new --out")

    def missing(self, cells: Iterable[SweepCell]) -> list[SweepCell]:
        """Cells without done.json, in order."""
        return [cell for cell in cells if not cell.run.is_done]

    def attempts(self, name: str) -> list[dict[str, str]]:
        """Failed attempts of a cell: `when`, `kind`, `error` each; empty when none or done."""
        path = self.out / "failures" / f"{name}.json"
        try:
            return list(json.loads(path.read_text()))
        except (FileNotFoundError, ValueError):
            return []

    def fail(self, name: str, kind: str, error: str, when: str) -> None:
        """Record one more failed attempt of a cell."""
        record = [*self.attempts(name), {"when": when, "kind": kind, "error": error}]
        atomic.write_text(self.out / "failures" / f"{name}.json", json.dumps(record, indent=1))

    def forgive(self, name: str) -> None:
        """Forget the failed attempts of a cell (it is done, or the user asks again)."""
        (self.out / "failures" / f"{name}.json").unlink(missing_ok=True)

    def last_lines(self, name: str, count: int = 5) -> list[str]:
        """The end of what a cell printed; lines with dashes before them say when it began and ended."""
        try:
            lines = self.log(name).read_text(errors="replace").splitlines()
            return [line for line in lines if not line.startswith("--- ")][-count:]
        except FileNotFoundError:
            return []
