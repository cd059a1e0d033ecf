"""`cxrdist submit chain SPEC`: the stages of a chain, checked together and queued one after the other."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jobs import _tasks
from jobs._queueing import check_all, check_alone, queue_all, requests_for, show_all
from slurm.errors import InputError

if TYPE_CHECKING:
    from slurm.chain import Stage


@dataclasses.dataclass(frozen=True, kw_only=True)
class Planned:
    """A stage of a chain with its work; nothing is made yet."""

    name: str
    needs: tuple[str, ...]
    words: tuple[str, ...]
    at: _tasks.SubmitOptions
    work: _tasks.Submission
    complete: bool
    """It lies there made with these settings, and so does everything that it needs."""


def plan(path: Path, own: dict[str, str]) -> list[Planned]:
    """Return the checked stages of a chain, each after those that it needs; `own` options win over the file's.

    Raises:
        InputError: the file or the command of a stage cannot be used.
    """
    from slurm import chain

    return plan_stages(chain.load(path), own, str(path))


def plan_stages(
    stages: Sequence[Stage],
    own: dict[str, str],
    where: str,
    *,
    here: bool = False,
    folder_of: Callable[[str], Path | None] = lambda name: None,
) -> list[Planned]:
    """Return checked stages; nothing is made yet.

    Args:
        stages: each after those that it needs.
        own: options of submit that win over those of the stages.
        where: what errors call the file.
        here: they will run on this machine, whatever cluster options they have.
        folder_of: where a stage keeps what its command has no folder for (SubmitOptions.folder).

    Raises:
        InputError: the command of a stage cannot be used.
    """
    planned = []
    unmade: set[str] = set()  # stages whose output is not there yet
    for stage in stages:
        of_stage, left = _tasks.split([*(() if here else stage.options), *stage.words[1:]])
        at = dataclasses.replace(_tasks.where({**of_stage, **own}), name=stage.name, folder=folder_of(stage.name))
        if here:  # --nproc says how many ranks there are
            at = dataclasses.replace(at, profile=dataclasses.replace(at.profile, ranks_per_node=1))
        words = (stage.words[0], *left)
        waits = not unmade.isdisjoint(stage.needs)
        try:
            found = _tasks.work(words, at, create=False, waits=waits)
        except ValueError as error:
            if getattr(error, "exit_code", None) is None:
                raise
            raise InputError(f"{where}: stage {stage.name}: {error}") from error
        if waits or not found.complete:
            unmade.add(stage.name)
        complete = found.complete and not waits
        planned.append(Planned(name=stage.name, needs=stage.needs, words=words, at=at, work=found, complete=complete))
    return planned


def unmark(planned: Sequence[Planned], name: str) -> None:
    """Forget that what is made from a stage's output was made, since that stage is made anew."""
    changed = {name}
    for stage in planned:
        if not changed.isdisjoint(stage.needs):
            changed.add(stage.name)
            for task in stage.work.tasks:
                if task.mark:
                    Path(task.mark).unlink(missing_ok=True)


def queue_chain(words: Sequence[str]) -> int:
    """Run `cxrdist submit chain WORDS`: queue every stage that is neither complete nor in the queue."""
    own, rest = _tasks.split(words)
    if len(rest) != 1:
        raise InputError("usage: cxrdist submit chain SPEC.toml [--dry_run] [--profile NAME]")
    queue(plan(Path(rest[0]), own))
    return 0


def queue(planned: Sequence[Planned]) -> None:
    """Queue every stage that is neither complete nor in the queue; with --dry_run print what would be sent."""
    from slurm import client, jobs_file, unnoted

    dry_run = any(stage.at.dry_run for stage in planned)
    for stage in planned:
        (check_alone if dry_run else check_all)(requests_for(stage.work, stage.at, stage.name))
    job_of: dict[str, str] = {}  # stages that are not complete -> the job that makes them so
    for stage in planned:
        work, at = stage.work, stage.at
        pending = tuple(job_of[need] for need in stage.needs if need in job_of)
        if work.complete and not pending:
            print(f"{stage.name}: complete", file=sys.stderr if dry_run else sys.stdout)
            continue
        if dry_run:
            print(f"# ==== {stage.name}, after {', '.join(stage.needs) or 'nothing'}")
            show_all(requests_for(work, at, stage.name))
            continue
        folders = [request.folder for request in requests_for(work, at, stage.name)]
        for folder in folders:
            unnoted.adopt(folder)
        busy = client.active(number for folder in folders for number in jobs_file.job_ids(folder))
        if busy and busy[-1].job_id not in [str(facts["job_id"]) for facts in jobs_file.jobs(folders[-1])]:
            raise InputError(
                f"{stage.name}: job {busy[-1].job_id} makes its parts, but the merge that should follow is not in the "
                f"queue; wait for that job, or `cxrdist cancel {work.folder}`, then submit again"
            )
        if busy:
            job_of[stage.name] = busy[-1].job_id
            print(f"{stage.name}: in the queue already as job {busy[-1].job_id}")
            continue
        unmark(planned, stage.name)
        if not pending:
            work = _tasks.work(stage.words, at, create=True)
        at = dataclasses.replace(at, after=(*at.after, *pending))
        requests = requests_for(work, at, stage.name)
        if len(requests) == 2:
            requests[1] = dataclasses.replace(requests[1], after=pending)
        job_of[stage.name] = queue_all(requests)
        waits = f", after {', '.join(pending)}" if pending else ""
        print(f"{stage.name}: queued as job {job_of[stage.name]}{waits}")
