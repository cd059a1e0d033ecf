"""`cxrdist submit COMMAND ...`: the same command on a SLURM cluster; `cxrdist submit chain SPEC`: a chain of them."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from slurm.errors import InputError

if TYPE_CHECKING:
    from jobs.stages import Where, Work
    from slurm.submit import Request

HELP = "run pretrain, finetune, sweep, shard or a chain of them on SLURM"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Words of `cxrdist submit`; see jobs/stages.py for its own options."""

    words: list[str]
    """Command and options, submit's own among them."""


POSITIONALS = ("words",)


def main(words: Sequence[str]) -> int:
    """Run `cxrdist submit WORDS`."""
    from jobs import stages

    if not words or words[0] in ("-h", "--help"):
        print(_help(stages.OPTIONS, stages.SUBMITTABLE))
        return 0 if words else 2
    if words[0] == "prepare":
        stages.prepare(words[1:])
        return 0
    if words[0] == "chain":
        return _chain(words[1:])
    own, rest = stages.split(words[1:])
    at = stages.where(own)
    work = stages.work([words[0], *rest], at, create=False)
    requests = _requests(work, at, at.name or words[0])
    if at.dry_run:
        _show(requests)
        return 0
    if work.complete:
        print(f"{work.folder} is complete: nothing to queue")
        return 0
    _check(requests)
    _refuse_queued(requests)
    work = stages.work([words[0], *rest], at, create=True)
    last = _queue(_requests(work, at, at.name or words[0]))
    print(f"queued as job {last}: cxrdist status {work.folder}; cxrdist logs -f {work.folder}")
    return 0


def run(config: Config) -> int:
    """Run the words of a parsed configuration."""
    return main(config.words)


def _help(options: dict[str, str], commands: Sequence[str]) -> str:
    lines = ["usage: cxrdist submit COMMAND [submit's options] [COMMAND's options]", ""]
    lines += ["       cxrdist submit chain SPEC.toml [--dry_run]", "", f"COMMAND is one of {', '.join(commands)}.", ""]
    lines += [f"  --{name:<10} {text}" for name, text in options.items()]
    return "\n".join(lines)


def _requests(work: Work, at: Where, name: str) -> list[Request]:
    """One request; for a sharded conversion the array and then the merge (which `_queue` makes wait for the array)."""
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


def _check(requests: Sequence[Request]) -> None:
    from slurm import submit

    for request in requests:
        submit.check(request)


def _refuse_queued(requests: Sequence[Request]) -> None:
    """Before anything is queued: an array whose merge still waits must not be queued a second time."""
    from slurm import submit

    for request in requests:
        submit.refuse_queued(request.folder)


def _show(requests: Sequence[Request]) -> None:
    from slurm import submit

    for position, request in enumerate(requests):
        if position:
            print("# ---- then, with --dependency=afterok on the job above")
        print(submit.text(request))


def _queue(requests: Sequence[Request]) -> str:
    from slurm import submit

    job_id = ""
    for request in requests:
        after = (*request.after, job_id) if job_id else request.after
        job_id = submit.submit(dataclasses.replace(request, after=after))
    return job_id


def _chain(words: Sequence[str]) -> int:
    from jobs import stages
    from slurm import notes, queue

    own, rest = stages.split(words)
    if len(rest) != 1:
        raise InputError("usage: cxrdist submit chain SPEC.toml [--dry_run] [--profile NAME]")
    planned = stages.plan(Path(rest[0]), own)
    dry_run = any(stage.at.dry_run for stage in planned)
    if not dry_run:
        for stage in planned:
            _check(_requests(stage.work, stage.at, stage.name))
    job_of: dict[str, str] = {}  # stages that are not complete -> the job that makes them so
    for stage in planned:
        work, at = stage.work, stage.at
        pending = tuple(job_of[need] for need in stage.needs if need in job_of)
        if work.complete and not pending:
            print(f"{stage.name}: complete", file=sys.stderr if dry_run else sys.stdout)
            continue
        if dry_run:
            print(f"# ==== {stage.name}, after {', '.join(stage.needs) or 'nothing'}")
            _show(_requests(work, at, stage.name))
            continue
        folders = [request.folder for request in _requests(work, at, stage.name)]
        busy = queue.active(number for folder in folders for number in notes.job_ids(folder))
        if busy:
            job_of[stage.name] = busy[-1].job_id
            print(f"{stage.name}: in the queue already as job {busy[-1].job_id}")
            continue
        if not pending:
            work = stages.work(stage.words, at, create=True)
        at = dataclasses.replace(at, after=(*at.after, *pending))
        requests = _requests(work, at, stage.name)
        if len(requests) == 2:
            requests[1] = dataclasses.replace(requests[1], after=pending)
        job_of[stage.name] = _queue(requests)
        waits = f", after {', '.join(pending)}" if pending else ""
        print(f"{stage.name}: queued as job {job_of[stage.name]}{waits}")
    return 0


if __name__ == "__main__":
    from jobs import cli

    sys.exit(cli.main(["submit", *sys.argv[1:]]))
