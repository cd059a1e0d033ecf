"""The end of every batch script: `python -m slurm.requeue FOLDER STATUS MAX [ended]` decides what an exit status means.

It runs on the job's first node after srun has returned, so the ranks have saved and are gone. Requeueing from here and
not from inside a rank has two merits: nothing is killed in the middle of a save, and the rule stands in one place.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from slurm import client
from slurm.errors import FailedError, InputError
from slurm.fence import claim_path
from slurm.handover import Lineage, hand_over, lineage

STOPPED = 75
"""Exit code of a task that was asked to stop and can go on later (EX_TEMPFAIL)."""
BY_STOP_SIGNAL = (STOPPED, 138, 140, 143)
"""Stopped, or a task that died of USR1, USR2 or TERM before it listened."""
KILLED = 137
"""A task died of KILL: out of memory, a lost node, an administrator."""
ENDED = "ended"
"""Last argument when SLURM has told the batch script itself to end: a cancellation, or a preemption without requeue."""
RETRY_S = 300.0
"""A controller that cannot be reached is asked again for so long (seconds): it may be restarting."""
MAX_KILLS = 3
"""A job whose tasks were killed so often is not requeued again: it would happen for ever."""


def failure_mark(job: str, restart: str) -> str:
    """Name of the file by which a node says that its workers failed by themselves in this stretch."""
    return f"failed-{job}.{restart}"


def own_name() -> str:
    """Return how SLURM names this job: its number, or number_part.

    One part of each job array has the array's own number: what is done to that number is done to all parts.
    """
    part = os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{part}" if part else os.environ["SLURM_JOB_ID"]


def decide(
    folder: Path, status: int, limit: int, job: str, restart: int, earlier: Lineage | None = None
) -> tuple[bool, str]:
    """Return whether to requeue, and the reason in words.

    Args:
        folder: Submission folder.
        status: What srun returned: the highest exit code of its tasks, 128 + N for a death by signal N.
        limit: Highest number of requeues.
        job: Job number.
        restart: How often the job was requeued so far.
        earlier: The jobs that it continues; None when there are none.
    """
    before = earlier.requeues if earlier else 0
    failed = folder / failure_mark(job, str(restart))
    if failed.exists():
        return False, failed.read_text() or "the workers failed; see the end of the log"
    if _newer_stretch(folder, job, restart):
        return False, "a newer stretch of this job is running"
    if status == KILLED:
        kills = folder / f"kills-{earlier.first if earlier else job}"
        with kills.open("a") as log:
            log.write(f"stretch {restart + 1}\n")
        count = len(kills.read_text().splitlines())
        if count > MAX_KILLS:
            return (
                False,
                f"its processes were killed {count} times (out of memory? see `sacct -j {job} -o State,MaxRSS`)",
            )
    elif status not in BY_STOP_SIGNAL:
        return False, f"it failed with exit code {status}"
    if before + restart >= limit:
        return (
            False,
            f"it was requeued {before + restart} times already (max_requeues = {limit}); submit it again to go on",
        )
    return True, "its processes were killed" if status == KILLED else "it was asked to stop and has saved what it can"


def _newer_stretch(folder: Path, job: str, restart: int) -> bool:
    try:
        owner = json.loads(claim_path(folder).read_text())["owner"]
    except (OSError, ValueError, KeyError):
        return False
    number, _, stretch = owner.removeprefix("job ").partition(".")
    return number == job and stretch.isdecimal() and int(stretch) > restart


def _veto(job: str, restart: int, ended: bool) -> str | None:
    """Return why SLURM's own view of the job speaks against going on, or None."""
    try:
        info = client.job(job)
    except FailedError as error:  # the requeue tries again and says so
        return f"the job was ended, and SLURM does not say why ({error})" if ended else None
    if info.restarts > restart:  # the controller gave this stretch up, as it does with a node that it lost sight of
        return "SLURM has requeued it already"
    if ended and not info.preempted:
        return "it was cancelled, or ran into its time limit"
    return None


def requeue(job: str) -> str | None:
    """Send a job back to the queue and return None, or why it cannot be: SLURM's refusal, or its silence at last."""
    deadline, pause = time.monotonic() + RETRY_S, 1.0
    while True:
        try:
            client.call("scontrol", "requeue", job)
            return None
        except FailedError as error:
            if "pending" in str(error).lower():  # an earlier try was heard, only its answer was lost
                return None
            passing = isinstance(error, client.UnreachableError) or "transition" in str(error).lower()
            if not passing or time.monotonic() > deadline:
                return str(error)
            print(f"cxrdist: {error}; trying again", file=sys.stderr, flush=True)
        time.sleep(pause)
        pause = min(2 * pause, 30.0)


def go_on(folder: Path, job: str, requeues: int) -> None:
    """Send a job back to the queue, or queue its script again where the site forbids that; prints what came of it."""
    refused = requeue(job)
    if refused is None:
        time.sleep(60)  # SLURM ends this script
        return
    try:
        new = hand_over(folder, job, requeues)
    except (FailedError, InputError) as error:
        print(f"cxrdist: job {job} cannot go on by itself: {refused}; {error}; submit it again to go on", flush=True)
        return
    print(f"cxrdist: requeueing is not allowed here ({refused}): job {new} goes on in its place", flush=True)


def main() -> int:
    """Send this job back to the queue, or return the exit code it ends with."""
    folder, status, limit = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    ended = sys.argv[4:] == [ENDED]
    if status == 0:
        return 0
    job, number, restart = own_name(), os.environ["SLURM_JOB_ID"], int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    earlier = lineage(folder, job)
    again, reason = decide(folder, status, limit, number, restart, earlier)
    if again and (veto := _veto(job, restart, ended)):
        again, reason = False, veto
    stamp = time.strftime("%Y-%m-%d %H:%M:%S")
    print(f"cxrdist: {stamp} job {job} {'goes back to the queue' if again else 'ends'}: {reason}", flush=True)
    if again:
        go_on(folder, job, earlier.requeues + restart + 1)
    return status


if __name__ == "__main__":
    sys.exit(main())
