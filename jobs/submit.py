"""`cxrdist submit COMMAND ...`: the same command on a SLURM cluster; `cxrdist submit chain SPEC`: a chain of them."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from slurm.submit import Request

HELP = "run pretrain, finetune, sweep, shard or a chain of them on SLURM"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Words of `cxrdist submit`; see jobs/_tasks.py for its own options."""

    words: list[str]
    """Command and options, submit's own among them."""


POSITIONALS = ("words",)


def main(words: Sequence[str]) -> int:
    """Run `cxrdist submit WORDS`."""
    from jobs import _tasks
    from jobs._queueing import check_all, check_alone, queue_all, requests_for, show_all

    if not words or words[0] in ("-h", "--help"):
        print(_help(_tasks.OPTIONS, _tasks.SUBMITTABLE))
        return 0 if words else 2
    if words[0] == "prepare":
        _tasks.prepare(words[1:])
        return 0
    if words[0] == "chain":
        from jobs import _chain

        _tell_of_defaults()
        return _chain.queue_chain(words[1:])
    _tell_of_defaults()
    own, rest = _tasks.split(words[1:])
    at = _tasks.where(own)
    work = _tasks.work([words[0], *rest], at, create=False)
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
    work = _tasks.work([words[0], *rest], at, create=True)
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


def _refuse_queued(requests: Sequence[Request]) -> None:
    """Before anything is queued: an array whose merge still waits must not be queued a second time."""
    from slurm import submit

    for request in requests:
        submit.refuse_queued(request.folder)


if __name__ == "__main__":
    from jobs import cli

    sys.exit(cli.main(["submit", *sys.argv[1:]]))
