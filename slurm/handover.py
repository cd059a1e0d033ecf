"""Going on where a site forbids requeueing: the script is queued again, and the new job takes the old one's place.

It starts when the old job has ended, counts as one of its requeues, and whatever waited for the old job waits for it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import time
from pathlib import Path

from slurm import client, jobs_file, unnoted
from slurm.errors import FailedError

LOCK_S = 60.0
"""Bound on waiting for the other parts of a job array, which may hand over at the same moment."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lineage:
    """A job as the continuation of others."""

    first: str
    """Number of the job that was submitted."""
    requeues: int
    """How often the run went back to the queue before this job."""


def lineage(folder: Path, job: str) -> Lineage:
    """Return which job a job (number or number_part) continues: itself, when it was submitted by somebody."""
    number = job.partition("_")[0]
    for facts in jobs_file.jobs(folder):
        if str(facts[jobs_file.NUMBER]) == number and "continues" in facts:
            return Lineage(**facts["continues"])
    return Lineage(first=job, requeues=0)


def hand_over(folder: Path, job: str, requeues: int) -> str:
    """Queue a job's script again, let everything that waits for the job wait for the new one, and return its number.

    Args:
        folder: Submission folder.
        job: The job that is about to end; number, or number_part of a job array.
        requeues: How often the run has gone back to the queue, this time included.

    Raises:
        FailedError: SLURM does not take the new job, or does not answer.
        InputError: another part of the array holds the lock for too long.
    """
    part = job.partition("_")[2]
    with jobs_file.locked(folder, LOCK_S):
        new = unnoted.send(folder, f"--dependency=afterany:{job}", *([f"--array={part}"] if part else []))
        new = new.partition(";")[0]
        facts = dataclasses.asdict(Lineage(first=lineage(folder, job).first, requeues=requeues))
        with contextlib.suppress(OSError):  # a full disk: `status` finds the job in the queue
            jobs_file.confirm(folder, new, {"continues": facts, "after": [], "submitted_at": _now()})
        move_dependents(job, new)
    return new


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def move_dependents(job: str, new: str) -> None:
    """Let this user's jobs that wait for a job wait for another one in its place."""
    for line in client.call("squeue", "--me", "-h", "-t", "PENDING", "-o", "%i|%E").splitlines():
        waiting, _, expression = line.partition("|")
        changed = replaced(expression, job, new)
        if changed is None:
            continue
        number = waiting.partition("_")[0]
        try:
            client.call("scontrol", "update", f"JobId={number}", f"Dependency={changed}")
        except FailedError as error:
            print(f"cxrdist: job {number} waits for {job} and could not be pointed to {new}: {error}", flush=True)


def replaced(expression: str, job: str, new: str) -> str | None:
    """Return a dependency with a job replaced by another, or None when the job is not in it.

    Args:
        expression: As squeue prints it: "afterok:12_*(unfulfilled),afterany:13(unfulfilled)".
        job: Number, or number_part: then a dependency on the whole array becomes one on its other parts and `new`.
        new: Number of the new job.
    """
    number, _, part = job.partition("_")
    changed, pieces = False, re.split(r"([,?])", expression)
    for position, piece in enumerate(pieces):
        match = re.fullmatch(r"(\w+):(\d+)(?:_(\*|\d+))?((?:\+\d+)?)(?:\(.*\))?", piece)
        if not match:
            continue
        kind, of, of_part, delay = match[1], match[2], match[3] or "", match[4]
        pieces[position] = f"{kind}:{of}" + (f"_{of_part}" if of_part not in ("", "*") else "") + delay
        if of != number or of_part not in ("", "*", part):
            continue
        others = other_parts(number, part) if part and of_part in ("", "*") else []
        if others is None:
            continue  # a part has failed, so that what waits for all parts has nothing more to wait for
        changed = True
        pieces[position] = f"{kind}:" + ":".join(f"{each}{delay}" for each in [*others, new])
    return "".join(pieces) if changed else None


def other_parts(number: str, part: str) -> list[str] | None:
    """Return the other parts of a job array that wait or run, as number_part; None when one of them has failed."""
    found: list[str] = []
    for line in client.call("scontrol", "-o", "show", "job", number).splitlines():
        tasks, state = re.search(r"ArrayTaskId=(\S+)", line), re.search(r"JobState=(\S+)", line)
        if not tasks or not state:
            continue
        for one in _tasks(tasks[1]):
            if one == int(part) or state[1] == "COMPLETED":
                continue
            if state[1] not in client.ACTIVE:
                return None
            found.append(f"{number}_{one}")
    return found


def _tasks(text: str) -> list[int]:
    """Return the parts in SLURM's notation: "3-5,9%2" -> 3 4 5 9; "0-8:4" -> 0 4 8."""
    found: list[int] = []
    for piece in text.partition("%")[0].split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", piece)
        if match:
            first, last, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
            found += range(first, last + 1, step)
    return found
