"""From work to requests in the queue: what `cxrdist submit COMMAND` and `submit chain` share."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobs._tasks import Submission, SubmitOptions
    from slurm.submit import Request


def requests_for(work: Submission, at: SubmitOptions, name: str) -> list[Request]:
    """One request; for a sharded conversion the array, then the merge (`queue_all` makes it wait for the array)."""
    from slurm.submit import Request

    shared = {"profile": at.profile, "partition": at.partition}
    if len(work.tasks) == 1:
        return [
            Request(name=name, task=work.tasks[0], nodes=at.nodes, min_nodes=at.min_nodes, after=at.after, **shared)
        ]
    parts, merge = work.tasks
    array = Request(name=name, task=parts, after=at.after, array=at.parts or at.nodes, **shared)
    folder = str(Path(merge.folder).with_name("submission-merge"))
    return [array, Request(name=f"{name}-merge", task=dataclasses.replace(merge, folder=folder), **shared)]


def check_all(requests: Sequence[Request]) -> None:
    """Compare requests with the cluster (slurm.checks.check)."""
    from slurm import checks

    for request in requests:
        checks.check(request)


def check_alone(requests: Sequence[Request]) -> None:
    """Check of requests what needs no cluster (slurm.checks.check_alone), for a dry run."""
    from slurm import checks

    for request in requests:
        checks.check_alone(request)


def show_all(requests: Sequence[Request]) -> None:
    """Print the sbatch text of each request."""
    from slurm import submit

    for position, request in enumerate(requests):
        if position:
            print("# ---- then, with --dependency=afterok on the job above")
        print(submit.text(request))


def queue_all(requests: Sequence[Request]) -> str:
    """Queue requests, each after the one before it, and return the last one's job number.

    Raises:
        InputError, FailedError: one was not taken, as at a limit of jobs; those before it are cancelled again.
    """
    from slurm import client, submit
    from slurm.errors import FailedError, InputError

    queued: list[str] = []
    for request in requests:
        after = (*request.after, *queued[-1:])
        try:
            queued.append(submit.submit(dataclasses.replace(request, after=after)))
        except (FailedError, InputError) as error:
            if not queued:
                raise
            gone = ", ".join(client.cancel(queued)) or "none"
            raise type(error)(f"{error}; what was queued for it just before is cancelled again (job {gone})") from error
    return queued[-1]
