"""Jobs of a run that its notes do not know: a submission whose answer was lost, or `sbatch job.sbatch` by hand."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from slurm import client, jobs_file
from slurm.errors import FailedError

LATE_S = 120.0
"""A job whose submission got no answer may still appear in the queue for so long (seconds)."""


def adopt(folder: Path) -> list[str]:
    """Note the jobs of a submission folder that wait or run without a note, and return them, oldest first.

    Raises:
        FailedError: SLURM absent or not answering.
    """
    if not (folder / "job.sbatch").is_file():
        return []
    known = {name.partition(";")[0] for name in jobs_file.job_ids(folder)}
    cluster = os.environ.get("SLURM_CLUSTERS", "")
    found = [number for number in client.sent_from(folder / "job.sbatch") if number not in known]
    names = [f"{number};{cluster}" if cluster else number for number in found]
    for name in names:
        with contextlib.suppress(OSError):  # a full disk, or a folder that may only be read: reported nevertheless
            jobs_file.confirm(folder, name, {"adopted_at": time.strftime("%Y-%m-%dT%H:%M:%S%z")})
    return names


def send(folder: Path, *options: str) -> str:
    """Queue a submission folder's script and return the job as SLURM names it, even where sbatch's answer is lost.

    Raises:
        NoAnswerError: no answer, and no new job in the queue (yet).
        FailedError: SLURM absent, or it refused the job.
    """
    try:
        return client.sbatch(folder / "job.sbatch", *options)
    except client.NoAnswerError:
        known = {name.partition(";")[0] for name in jobs_file.job_ids(folder)}
        with contextlib.suppress(FailedError):
            if found := [number for number in client.sent_from(folder / "job.sbatch") if number not in known]:
                return found[-1]
        raise


def pending_answer(folder: Path) -> tuple[str, float] | None:
    """Return when a submission that got no answer was sent (as text), and for how many seconds it may still appear."""
    held = jobs_file.reservation(folder)
    if held is None:
        return None
    sent = float(held[jobs_file.RESERVED])
    return time.strftime("%H:%M:%S", time.localtime(sent)), max(0.0, sent + LATE_S - time.time())
