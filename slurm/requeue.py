"""The end of every batch script: `python -m slurm.requeue FOLDER STATUS MAX` decides what an exit status means.

It runs on the job's first node after srun has returned, so the ranks have saved and are gone. Requeueing from here and
not from inside a rank has two merits: nothing is killed in the middle of a save, and the rule stands in one place.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from slurm import queue
from slurm.errors import FailedError
from slurm.fence import claim_path

STOPPED = 75
"""Exit code of a task that was asked to stop and can go on later (EX_TEMPFAIL)."""
BY_STOP_SIGNAL = (STOPPED, 138, 140, 143)
"""Stopped, or a task that died of USR1, USR2 or TERM before it listened."""
KILLED = 137
"""A task died of KILL: out of memory, a lost node, an administrator."""
MAX_KILLS = 3
"""A job whose tasks were killed so often is not requeued again: it would happen for ever."""


def failure_mark(job: str, restart: str) -> str:
    """Name of the file by which a node says that its workers failed by themselves in this stretch."""
    return f"failed-{job}.{restart}"


def decide(folder: Path, status: int, limit: int, job: str, restart: int) -> tuple[bool, str]:
    """Return whether to requeue, and the reason in words.

    Args:
        folder: Submission folder.
        status: What srun returned: the highest exit code of its tasks, 128 + N for a death by signal N.
        limit: Highest number of requeues.
        job: Job number.
        restart: How often the job was requeued so far.
    """
    if (folder / failure_mark(job, str(restart))).exists():
        return False, "the workers failed; see the end of the log"
    if _newer_stretch(folder, job, restart):
        return False, "a newer stretch of this job is running"
    if status == KILLED:
        kills = folder / f"kills-{job}"
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
    if restart >= limit:
        return False, f"it was requeued {restart} times already (max_requeues = {limit}); submit it again to go on"
    return True, "its processes were killed" if status == KILLED else "it was asked to stop and has saved what it can"


def _newer_stretch(folder: Path, job: str, restart: int) -> bool:
    try:
        owner = json.loads(claim_path(folder).read_text())["owner"]
    except (OSError, ValueError, KeyError):
        return False
    number, _, stretch = owner.removeprefix("job ").partition(".")
    return number == job and stretch.isdigit() and int(stretch) > restart


def _restarted_elsewhere(job: str, restart: int) -> bool:
    """Whether the controller has given this stretch up, as it does with a node that it lost sight of."""
    try:
        return queue.job(job).restarts > restart
    except FailedError:  # it does not answer: the requeue below tries again and says so
        return False


def main() -> int:
    """Requeue this job or return the exit code it ends with."""
    folder, status, limit = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    if status == 0:
        return 0
    job, restart = os.environ["SLURM_JOB_ID"], int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    again, reason = decide(folder, status, limit, job, restart)
    if again and _restarted_elsewhere(job, restart):
        again, reason = False, "SLURM has requeued it already"
    stamp = time.strftime("%Y-%m-%d %H:%M:%S")
    print(f"cxrdist: {stamp} job {job} {'goes back to the queue' if again else 'ends'}: {reason}", flush=True)
    if not again:
        return status
    for attempt in range(5):  # the controller may be restarting
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60)
        if done.returncode == 0:
            time.sleep(60)  # SLURM ends this script
            return status
        print(f"cxrdist: scontrol requeue {job}: {done.stderr.strip()}", file=sys.stderr, flush=True)
        time.sleep(2**attempt)
    return status


if __name__ == "__main__":
    sys.exit(main())
