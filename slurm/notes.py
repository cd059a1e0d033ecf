"""The note of every job that was submitted for a run: FOLDER/jobs.json, oldest first. Light, for the login node."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from slurm.errors import InputError


def jobs(folder: Path) -> list[dict[str, Any]]:
    """Return the notes of all jobs that were submitted for a run, oldest first."""
    path = folder / "jobs.json"
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); move it away and submit again") from error


def job_ids(folder: Path) -> list[str]:
    """Return the numbers of all jobs that were submitted for a run, oldest first."""
    return [str(facts["job_id"]) for facts in jobs(folder)]


def is_complete(facts: dict[str, Any]) -> bool:
    """Whether a job of `jobs` has nothing left to do, by the file that its task ends with."""
    task = facts.get("task") or {}
    last = task.get("done") or task.get("mark")
    return bool(last) and Path(last).is_file()


def add(folder: Path, facts: dict[str, Any]) -> None:
    """Append the note of a job that was just queued."""
    write(folder / "jobs.json", json.dumps([*jobs(folder), facts], indent=2) + "\n")


def write(path: Path, content: str) -> None:
    """Write a file that only the user can read, in one piece."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.touch(mode=0o600)
    temporary.write_text(content)
    os.replace(temporary, path)
