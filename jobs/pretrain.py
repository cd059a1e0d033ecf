"""`cxrdist pretrain`: make or find the run's folder, start its ranks, report how it ended."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from cxrdist.config import IGNORED_BY_SIGNATURE, PretrainConfig, to_dict, validate
from cxrdist.errors import InputError
from results.run import Run, signature

HELP = "pretrain an encoder with SimCLR on one or many GPUs"
Config = PretrainConfig
POSITIONALS: tuple[str, ...] = ()


def create_run(config: PretrainConfig, command: list[str] | None = None) -> Run:
    """Check a configuration and freeze it in its run folder; torch-free, so a login node can do it.

    Args:
        config: what to run.
        command: the command line to record; None: this process's own.

    Raises:
        InputError: unusable values, shards that are none, or a folder that holds something else.
    """
    from shards import read_card

    validate(config)
    identity = config.shards
    if "://" not in config.shards:
        config = dataclasses.replace(config, shards=str(Path(config.shards).expanduser().resolve()))
        card = read_card(config.shards)
        identity = card.sha256
        if "train" not in card.splits:
            raise InputError(f"{config.shards} has no train split; it has {', '.join(card.splits) or 'none'}")
    init = Path(config.init).expanduser()
    if config.init not in ("scratch", "imagenet"):
        if not init.exists():
            raise InputError(
                f"--init {config.init} does not exist; use scratch, imagenet, a weights file or a run folder"
            )
        config = dataclasses.replace(config, init=str(init.resolve()))
    values = to_dict(config)
    return Run.create(
        config.out,
        job="pretrain",
        config=values,
        signature=signature(values | {"shards": identity}, IGNORED_BY_SIGNATURE),
        shards={config.shards: identity},
        command=command,
    )


def run(config: PretrainConfig) -> int:
    """Train until done (0), failed (the worker's code) or stopped by a signal (130)."""
    from slurm.launch import local

    run = create_run(config)
    if run.is_done:
        print(f"{run.path} is done: {run.encoder}")
        return 0
    code = local("cxrdist.pretrain", [str(run.path)], nproc=config.nproc, max_restarts=config.max_restarts)
    if code:
        print(f"cxrdist: pretraining failed (exit code {code}); the same command goes on from the last checkpoint",
              file=sys.stderr)  # fmt: skip
        return code
    if not run.is_done:
        print(f"cxrdist: {run.path} was stopped and saved; the same command goes on", file=sys.stderr)
        return 130
    print(f"{run.path} is done: {run.encoder}")
    return 0
