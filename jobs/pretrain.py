"""`cxrdist pretrain`: make or find the run's folder, start its ranks, report how it ended."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from cxrdist.core.configs import METHOD
from cxrdist.core.initialisation import NAMED_INITS, Initialisation, check_init, check_weights, describe
from cxrdist.core.shard_sets import SCHEME, datasets
from cxrdist.errors import InputError
from cxrdist.pretrain.config import IGNORED_BY_SIGNATURE, PretrainConfig, check_batch, check_pool, to_dict, validate
from cxrdist.pretrain.methods import that_counts
from results.run import Run, signature

HELP = "pretrain an encoder with SimCLR or VICReg on one or many GPUs"
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
    config, identity, start = resolve(config)
    return Run.create(
        config.out,
        job="pretrain",
        config=to_dict(config),
        signature=identify(config, identity, start),
        shards={config.shards: identity},
        init=start.facts(),
        datasets=datasets([config.shards], start.file),
        command=command,
    )


def resolve(config: PretrainConfig) -> tuple[PretrainConfig, str, Initialisation]:
    """A checked configuration with absolute places, the hash of its shard set, and what it starts from.

    Raises:
        InputError: see `create_run`.
    """
    from shards import read_card

    validate(config)
    place = config.shards if SCHEME in config.shards else str(Path(config.shards).expanduser().resolve())
    config = dataclasses.replace(config, shards=place.rstrip("/"))
    card = read_card(config.shards)
    check_pool(config.pool, card, config.shards)
    check_batch(config.global_batch, card.counts["train"]["n"], config.shards)
    if config.init not in NAMED_INITS:
        init = Path(config.init).expanduser()
        if not init.exists():
            raise InputError(
                f"--init {config.init} does not exist; use scratch, imagenet, a weights file or a run folder"
            )
        check_init(str(init), config.arch)
        config = dataclasses.replace(config, init=str(init.resolve()))
    start = describe(config.init)
    check_weights(config, start)
    return config, card.sha256, start


def identify(config: PretrainConfig, shards: str, start: Initialisation) -> str:
    """Signature of a resolved configuration: its shard set and weights file count by content, not by place."""
    by_content = {"shards": shards, "init": start.sha256 or config.init, "method": METHOD}
    return signature(that_counts(to_dict(config)) | by_content, IGNORED_BY_SIGNATURE)


def run(config: PretrainConfig) -> int:
    """Train until done (0), failed (the worker's code) or stopped by a signal (130)."""
    from slurm.launch import local

    run = create_run(config)
    if run.is_done:
        print(f"{run.path} is done: {run.encoder}")
        return 0
    with run.alone():
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
