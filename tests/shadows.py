"""A working folder whose files have the names of modules: none of them may be taken for the real one."""

from __future__ import annotations

from pathlib import Path

NAMES = ("jobs", "slurm", "results", "shards", "cxrdist", "submitit", "torch", "ray", "queue", "pickle", "random")


def shadows(folder: Path) -> Path:
    """Fill a folder (made when missing) with modules that end whoever imports them, and return it."""
    folder.mkdir(exist_ok=True)
    for name in NAMES:
        (folder / f"{name}.py").write_text(f"raise ImportError('{name} was taken from the working folder')\n")
    return folder
