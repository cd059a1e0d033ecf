"""`cxrdist submit COMMAND ...`: the same command on a SLURM cluster; `cxrdist submit chain SPEC`: a chain of them."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

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
        from jobs import chained

        _tell_of_defaults()
        return chained.queue_chain(words[1:])
    _tell_of_defaults()
    own, rest = stages.split(words[1:])
    at = stages.where(own)
    work = stages.work([words[0], *rest], at, create=False)
    requests = requests_for(work, at, at.name or words[0])
    if at.dry_run:
        check_alone(requests)
        show_all(requests)
        if work.complete:
            print(f"cxrdist: {work.folder} is complete: nothing would be queued", file=sys.stderr)
        return 0
    if work.complete:
        print(f"{work.folder} is complete: nothing to queue")
        return 0
    check_all(requests)
    _refuse_queued(requests)
    work = stages.work([words[0], *rest], at, create=True)
    last = queue_all(requests_for(work, at, at.name or words[0]))
    print(f"queued as job {last}: cxrdist status {work.folder}; cxrdist logs -f {work.folder}")
    return 0


def _tell_of_defaults() -> None:
    """Say which of the user's defaults for sbatch are not used: they would overrule what was checked."""
    from slurm.inherited import overruled

    if names := overruled():
        print(
            f"cxrdist: {', '.join(names)}: not used; the profile decides (account, partition, [sbatch])",
            file=sys.stderr,
        )


def run(config: Config) -> int:
    """Run the words of a parsed configuration."""
    return main(config.words)


def _help(options: dict[str, str], commands: Sequence[str]) -> str:
    lines = ["usage: cxrdist submit COMMAND [submit's options] [COMMAND's options]", ""]
    lines += ["       cxrdist submit chain SPEC.toml [--dry_run]", "", f"COMMAND is one of {', '.join(commands)}.", ""]
    lines += [f"  --{name:<10} {text}" for name, text in options.items()]
    return "\n".join(lines)


def requests_for(work: Work, at: Where, name: str) -> list[Request]:
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
    """Compare requests with the cluster (slurm.submit.check)."""
    from slurm import submit

    for request in requests:
        submit.check(request)


def check_alone(requests: Sequence[Request]) -> None:
    """Check of requests what needs no cluster (slurm.submit.check_alone), for a dry run."""
    from slurm import submit

    for request in requests:
        submit.check_alone(request)


def _refuse_queued(requests: Sequence[Request]) -> None:
    """Before anything is queued: an array whose merge still waits must not be queued a second time."""
    from slurm import submit

    for request in requests:
        submit.refuse_queued(request.folder)


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
    from slurm import queue, submit
    from slurm.errors import FailedError, InputError

    queued: list[str] = []
    for request in requests:
        after = (*request.after, *queued[-1:])
        try:
            queued.append(submit.submit(dataclasses.replace(request, after=after)))
        except (FailedError, InputError) as error:
            if not queued:
                raise
            gone = ", ".join(queue.cancel(queued)) or "none"
            raise type(error)(f"{error}; what was queued for it just before is cancelled again (job {gone})") from error
    return queued[-1]


if __name__ == "__main__":
    from jobs import cli

    sys.exit(cli.main(["submit", *sys.argv[1:]]))
