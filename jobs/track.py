"""`cxrdist track DIR --to mlflow`: send runs that are there to a tracker; what was sent before is not sent again."""

from __future__ import annotations

from dataclasses import dataclass

HELP = "Send runs that are there to Weights & Biases or MLflow."
POSITIONALS = ("folder",)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which runs, and where to."""

    folder: str
    """A run, or a folder of runs."""
    to: str
    """wandb, mlflow, or both separated by a comma; addresses and accounts are the trackers' own settings."""


def run(config: Config) -> int:
    """Send, and say how much; 1 where a tracker could not be reached."""
    from pathlib import Path

    from results.errors import InputError
    from results.tracking.backends import names
    from results.tracking.mirror import Mirror, runs_below
    from results.wording import count

    wanted = names(config.to)
    if not wanted:
        raise InputError("--to names no tracker: wandb or mlflow")
    top = Path(config.folder)
    if not top.is_dir() or not runs_below(top):
        raise InputError(f"{config.folder}: no such folder, or no runs below it")
    mirror = Mirror(top, wanted)
    complete = mirror.sync()
    mirror.close()
    if complete:
        print(f"{count(len(runs_below(top)), 'run')} sent to {', '.join(wanted)}")
    return 0 if complete else 1
