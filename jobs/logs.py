"""`cxrdist logs RUN`: the output of a run's newest job; -f goes on as it grows, through requeues."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from slurm.errors import InputError

if TYPE_CHECKING:
    from slurm.client import JobInfo

HELP = "print or follow a run's log"
POSITIONALS = ("run",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What to print."""

    run: str
    """Run folder."""
    follow: bool = False
    """Go on until the job has ended."""
    node: Annotated[int, "[0, inf)"] = 0
    """Node of the job, from 0."""


def main(words: Sequence[str]) -> int:
    """Run `cxrdist logs WORDS`."""
    from jobs.status import Parser

    parser = Parser("logs", HELP)
    parser.add_argument("run", metavar="RUN", help="run folder")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the job has ended")
    parser.add_argument("--node", type=int, default=0, help="node of the job, from 0")
    return run(Config(**vars(parser.parse_args(list(words)))))


def run(config: Config) -> int:
    """Print the log."""
    from jobs.status import log_folder, submission
    from slurm import client, jobs_file, status

    folder = submission(Path(config.run))
    if folder != log_folder(folder) and status.log_files(log_folder(folder)):
        folder = log_folder(folder)
    jobs = jobs_file.job_ids(folder)
    if not jobs and not status.log_files(folder):
        raise InputError(f"{config.run}: was never submitted, so it has no log (cxrdist submit ...)")
    if config.follow and jobs:
        return _follow(folder, config.node)
    logs = [path for path in status.log_files(folder) if path.name.endswith(f"_{config.node}_log.out")]
    if not logs:
        print(_silent(client.job(jobs[-1])))
        return 0
    for path in logs:
        if len(logs) > 1:
            print(f"==> {path.name} <==")
        sys.stdout.write(path.read_text(errors="replace"))
    return 0


def _follow(folder: Path, node: int) -> int:
    """Print the newest job's log as it grows, and that of each job that goes on in its place."""
    from slurm import client, jobs_file, status

    job = ""
    while job != (newest := jobs_file.job_ids(folder)[-1]):
        job = newest
        path = folder / f"{job.partition(';')[0]}_{node}_log.out"
        if not path.exists():
            print(_silent(client.job(job)), file=sys.stderr, flush=True)
        for text in status.follow(path, over=lambda now=job: not client.job(now).active):
            sys.stdout.write(text)
            sys.stdout.flush()
        if not path.exists():
            print(_silent(client.job(job)), file=sys.stderr, flush=True)
    return 0


def _silent(info: JobInfo) -> str:
    reason = f" ({info.reason})" if info.reason else ""
    return f"job {info.job_id} is {info.state}{reason} and has written nothing" + (" yet" if info.active else "")
