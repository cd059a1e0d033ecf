"""`cxrdist cancel RUN...`: take a run's jobs from the queue; what is saved stays, and submitting again goes on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

HELP = "cancel a submitted run"
POSITIONALS = ("runs",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What to cancel."""

    runs: list[str]
    """Run folders."""


def main(words: Sequence[str]) -> int:
    """Run `cxrdist cancel WORDS`."""
    from jobs.status import Parser

    parser = Parser("cancel", HELP)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folder, or another output that was submitted")
    return run(Config(**vars(parser.parse_args(list(words)))))


def run(config: Config) -> int:
    """Cancel every job of the runs that waits or runs."""
    from jobs.status import submission
    from slurm import client, jobs_file, unnoted

    for name in config.runs:
        folder = submission(Path(name))
        unnoted.adopt(folder)
        ids = jobs_file.job_ids(folder)
        if folder.name == "submission-merge":
            ids = jobs_file.job_ids(folder.with_name("submission")) + ids
        numbers = client.cancel(ids)
        print(f"{name}: " + (f"cancelled job {', '.join(numbers)}" if numbers else "no job waits or runs"))
    return 0
