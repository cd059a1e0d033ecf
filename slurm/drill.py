"""Interrupting a job on purpose and measuring what that costs: on your own cluster, with its own scheduler."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from slurm import client
from slurm.errors import FailedError

Kind = Literal["preempt", "kill", "resume", "requeue-forbidden"]
COMMANDS: dict[str, tuple[str, ...]] = {
    "preempt": ("scancel --signal=USR2 {job}",),
    # KILL to the whole job would cancel it: the step is what runs the training.
    "kill": ("scancel --signal=KILL {job}.0",),
    "resume": ("scontrol requeue {job}",),
    "requeue-forbidden": ("scontrol update JobId={job} Requeue=0", "scancel --signal=USR2 {job}"),
}
"""preempt: what a preemption or a near time limit sends. kill: every process of the job dies at once. resume: an
administrator's requeue (TERM, then KILL after KillWait). requeue-forbidden: preempt, where no requeue is
allowed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Watched:
    """How to look at the run; the callables read its folder."""

    newest: Callable[[], str]
    """Its job; another one than before where the run goes on as a new job."""
    steps: Callable[[], list[int]]
    """Every logged step in the order of the log, repetitions included."""
    saved: Callable[[], int]
    """Step of the newest complete checkpoint; 0 when there is none."""
    stretches: Path
    """The launcher's note of each start of the job."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interruption:
    """One interruption and what it cost."""

    at_step: int
    """Last logged step when the signal was sent."""
    saved_step: int
    """Step of the newest checkpoint from which the job went on."""
    save_s: float | None
    """Signal to complete checkpoint, seconds; None when nothing was to be saved (kill)."""
    queue_s: float
    """Signal to the start of the next stretch's launcher, seconds: saving, requeue, the scheduler's own wait."""
    first_step_s: float
    """Start of the next stretch's launcher to its first logged step, seconds."""


def interrupt(run: Watched, kind: Kind, *, seconds: float) -> Interruption:
    """Interrupt the job now and wait until it has taken a new step.

    Args:
        run: The run; at least one step must have been logged.
        kind: See COMMANDS.
        seconds: Bound on the whole.

    Raises:
        FailedError: the job ended, or did not go on within `seconds`.
    """
    before, saved_before = run.steps(), run.saved()
    starts = len(stretch_times(run.stretches))
    sent = time.time()
    job = run.newest()
    for command in COMMANDS[kind]:
        client.call(*command.format(job=job).split())
    save_s = None
    deadline = time.monotonic() + seconds
    while len(stretch_times(run.stretches)) == starts:
        if kind != "kill" and save_s is None and run.saved() > saved_before:
            save_s = time.time() - sent
        _go_on(run, deadline, "start again")
        time.sleep(0.02)
    resumed_from, stopped_at = run.saved(), len(run.steps())
    started = stretch_times(run.stretches)[-1]
    while len(run.steps()) == stopped_at:
        _go_on(run, deadline, "take a step again")
        time.sleep(0.02)
    return Interruption(
        at_step=before[-1],
        saved_step=resumed_from,
        save_s=save_s,
        queue_s=started - sent,
        first_step_s=time.time() - started,
    )


def wait_for_step(run: Watched, step: int, *, seconds: float) -> None:
    """Wait until the run has logged a step.

    Raises:
        FailedError: the job ended before, or `seconds` went by.
    """
    deadline = time.monotonic() + seconds
    while not run.steps() or run.steps()[-1] < step:
        _go_on(run, deadline, f"reach step {step}")
        time.sleep(0.05)


def wait_for_end(job_id: str, *, seconds: float) -> None:
    """Wait until a job has succeeded.

    Raises:
        FailedError: it ended otherwise, or `seconds` went by.
    """
    deadline = time.monotonic() + seconds
    while (info := client.job(job_id)).active:
        if time.monotonic() > deadline:
            raise FailedError(f"job {job_id} is still {info.state} {info.reason} after {seconds:.0f} s; is there room?")
        time.sleep(1)
    if info.state != "COMPLETED":
        raise FailedError(f"job {job_id} ended as {info.state} {info.reason}; see its log")


def stretch_times(path: Path) -> list[float]:
    """Return when each stretch of the job began (seconds since 1970)."""
    try:
        return [json.loads(line)["time"] for line in path.read_text().splitlines()]
    except (FileNotFoundError, ValueError):
        return []


_next_look: dict[Path, float] = {}


def _go_on(run: Watched, deadline: float, what: str) -> None:
    now = time.monotonic()
    if now > deadline:
        job = run.newest()
        raise FailedError(f"job {job} did not {what} in time; see its log and `squeue -j {job}`")
    if now >= _next_look.get(run.stretches, 0):
        _next_look[run.stretches] = now + 3
        job = run.newest()
        info = client.job(job)
        if not info.active and run.newest() == job:
            raise FailedError(f"job {job} ended as {info.state} and did not {what}; see its log")


def lost_and_repeated(steps: list[int], total: int) -> tuple[int, int]:
    """Return how many of the steps 1..total were never logged, and how many were logged more than once."""
    return total - len(set(steps) & set(range(1, total + 1))), len(steps) - len(set(steps))
