"""Only one job may write to a run: the latest to claim it.

When a node loses its slurmd but not its power, SLURM requeues the job elsewhere while the old ranks go on computing.
Each start of a job therefore writes a fresh claim beside the run, and every launcher watches it: the launcher whose
claim was replaced ends its ranks at once, without a save.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from slurm import atomic


def claim_path(folder: Path) -> Path:
    """Return the claim's file in a submission folder; each part of a job array has a claim of its own."""
    part = os.environ.get("SLURM_ARRAY_TASK_ID")
    return folder / (f"owner-part{part}.json" if part else "owner.json")


class Fence:
    """A claim on a folder. Each node of a job makes one with the same `owner`; the first node writes it."""

    def __init__(self, folder: Path, owner: str) -> None:
        self.path = claim_path(folder)
        self.owner = owner

    def claim(self) -> None:
        """Become the owner, replacing whoever was."""
        atomic.write(self.path, json.dumps({"owner": self.owner}) + "\n")

    def lost(self) -> str | None:
        """Return who took over, as a sentence, or None while no job did (or nothing can be read just now)."""
        try:
            owner = json.loads(self.path.read_text())["owner"]
        except (OSError, ValueError, KeyError):
            return None
        if owner == self.owner or _stretch(owner) < _stretch(self.owner):
            return None
        return f"{owner} has taken over this run from {self.owner}"


def _stretch(owner: str) -> tuple[int, int]:
    """Order claims by job number, then by restart: "job 12.3" -> (12, 3)."""
    job, _, restart = owner.removeprefix("job ").partition(".")
    return (int(job), int(restart)) if job.isdecimal() and restart.isdecimal() else (0, 0)
