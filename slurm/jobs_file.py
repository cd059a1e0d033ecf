"""The note of every job that was submitted for a run: FOLDER/jobs.json, oldest first. Light, for the login node.

A note is written before sbatch is called, without a number, and gets its number afterwards: whatever happens in
between (a full disk, a controller that gives no answer, a kill), the run knows that a job of it may be in the queue.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slurm import atomic
from slurm.errors import InputError

NUMBER = "job_id"
RESERVED = "reserved_at"


def jobs(folder: Path) -> list[dict[str, Any]]:
    """Return the notes of all jobs that were submitted for a run, oldest first."""
    return [facts for facts in _all(folder) if facts.get(NUMBER)]


def job_ids(folder: Path) -> list[str]:
    """Return the numbers of all jobs that were submitted for a run, oldest first; "12;east" on the cluster east."""
    return [name_of(facts) for facts in jobs(folder)]


def name_of(facts: dict[str, Any]) -> str:
    """Return how SLURM names a job of `jobs`: its number, and its cluster where there are several."""
    return str(facts[NUMBER]) + (f";{facts['cluster']}" if facts.get("cluster") else "")


def reservation(folder: Path) -> dict[str, Any] | None:
    """Return the note of a submission that got no number (yet), or None."""
    return next((facts for facts in _all(folder) if not facts.get(NUMBER)), None)


def is_complete(facts: dict[str, Any]) -> bool:
    """Whether a job of `jobs` has nothing left to do, by the file that its task ends with."""
    task = facts.get("task") or {}
    last = task.get("done") or task.get("mark")
    return bool(last) and Path(last).is_file()


def reserve(folder: Path, facts: dict[str, Any]) -> None:
    """Note a job that is about to be queued, in place of an earlier one that never got a number."""
    _store(folder, [*jobs(folder), {NUMBER: None, RESERVED: time.time(), **facts}])


def confirm(folder: Path, job: str, facts: dict[str, Any] | None = None) -> None:
    """Give the reserved note its job (number, or number;cluster); `facts` is its note when none was reserved."""
    number, _, cluster = job.partition(";")
    held = reservation(folder) or {**(jobs(folder) or [{}])[-1], **(facts or {})}
    held.pop(RESERVED, None)
    _store(folder, [*jobs(folder), {**held, NUMBER: number, **({"cluster": cluster} if cluster else {})}])


def withdraw(folder: Path) -> None:
    """Take the reserved note back: no job was queued."""
    _store(folder, jobs(folder))


@contextlib.contextmanager
def locked(folder: Path, seconds: float) -> Iterator[None]:
    """Hold the lock on a run's submissions, from whatever machine.

    Raises:
        InputError: another process has held it for `seconds`.
    """
    import filelock  # 60 ms that `status` need not spend

    try:
        lock = filelock.FileLock(folder / ".lock", timeout=seconds)
        lock.acquire()
    except NotImplementedError:  # a file system without flock
        lock = filelock.SoftFileLock(folder / ".lock-soft", timeout=seconds)
        lock.acquire()
    except filelock.Timeout as error:
        raise InputError(f"{folder.parent}: another submission of it is under way; try again in a minute") from error
    try:
        yield
    finally:
        lock.release()


def _all(folder: Path) -> list[dict[str, Any]]:
    path = folder / "jobs.json"
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); move it away and submit again") from error


def _store(folder: Path, notes: list[dict[str, Any]]) -> None:
    atomic.write(folder / "jobs.json", json.dumps(notes, indent=2) + "\n")
