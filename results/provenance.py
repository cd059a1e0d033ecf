"""Where a run came from: commit, versions, host, command line. Nothing of the environment is recorded."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchvision", "timm", "numpy", "pyarrow", "ray")
"""Libraries whose versions travel with a run; looked up without importing them."""


def now() -> str:
    """The present moment in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def command_line(command: list[str] | None = None) -> list[str]:
    """`command`, or the one that started this process."""
    return [str(part) for part in (sys.argv if command is None else command)]


@functools.cache
def git_commit() -> str | None:
    """The commit of this checkout, with `-dirty` when tracked files were changed; None outside a repository."""
    here = Path(__file__).resolve().parent
    head = _git(here, "rev-parse", "HEAD")
    if head is None:
        return None
    return f"{head}-dirty" if _git(here, "status", "--porcelain", "--untracked-files=no") else head


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def versions() -> dict[str, str]:
    """Python's version and those of `PACKAGES` that are installed."""
    found = {"python": platform.python_version()}
    for name in ("cxrdist", *PACKAGES):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def facts() -> dict[str, Any]:
    """What run.json records about the machine and the code."""
    return {"git_commit": git_commit(), "versions": versions(), "host": socket.gethostname()}
