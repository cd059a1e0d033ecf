"""`cxrdist logs RUN`: the output of a run's newest job; -f goes on as it grows, through requeues."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from slurm.errors import InputError

HELP = "print or follow a run's log"
POSITIONALS = ("run",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What to print."""

    run: str
    """Run folder."""
    follow: bool = False
    """Go on until the job has ended."""
    node: int = 0
    """Node of the job, from 0."""


def main(words: Sequence[str]) -> int:
    """Run `cxrdist logs WORDS` (argparse, for the short -f)."""
    parser = argparse.ArgumentParser(prog="cxrdist logs", description=HELP, allow_abbrev=False)
    parser.add_argument("run", help="run folder")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the job has ended")
    parser.add_argument("--node", type=int, default=0, help="node of the job, from 0")
    options = parser.parse_args(list(words))
    return run(Config(run=options.run, follow=options.follow, node=options.node))


def run(config: Config) -> int:
    """Print the log."""
    from jobs.status import submission
    from slurm import queue, status, submit

    folder = submission(Path(config.run))
    jobs = submit.job_ids(folder)
    if not jobs and not status.log_files(folder):
        raise InputError(f"{config.run}: was never submitted, so it has no log (cxrdist submit ...)")
    if config.follow and jobs:
        path = folder / f"{jobs[-1]}_{config.node}_log.out"
        for text in status.follow(path, over=lambda: not queue.job(jobs[-1]).active):
            sys.stdout.write(text)
            sys.stdout.flush()
        return 0
    logs = [path for path in status.log_files(folder) if path.name.endswith(f"_{config.node}_log.out")]
    if not logs:
        info = queue.job(jobs[-1])
        print(f"job {jobs[-1]} is {info.state} {info.reason} and has written nothing yet".replace("  ", " "))
        return 0
    for path in logs:
        if len(logs) > 1:
            print(f"==> {path.name} <==")
        sys.stdout.write(path.read_text(errors="replace"))
    return 0
