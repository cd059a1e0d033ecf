"""A pretraining's run folder: the configuration checked, the run made, and what identifies it. Free of torch."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from cxrdist.core.configs import METHOD
from cxrdist.core.initialisation import NAMED_INITS, Initialisation, check_init, check_weights, describe
from cxrdist.core.shard_sets import SCHEME, datasets
from cxrdist.errors import InputError
from cxrdist.pretrain.config import IGNORED_BY_SIGNATURE, PretrainConfig, check_batch, check_pool, validate
from cxrdist.pretrain.methods import that_counts
from results.identity import plain, signature
from results.run import Run


def create_run(config: PretrainConfig, command: list[str] | None = None) -> Run:
    """Check a configuration and freeze it in its run folder; torch-free, so a login node can do it.

    Args:
        config: what to run.
        command: the command line to record; None: this process's own.

    Raises:
        InputError: unusable values, not a shard set, or a folder that holds something else.
    """
    config, identity, start = resolve(config)
    return Run.create(
        config.out,
        job="pretrain",
        config=plain(config),
        signature=identify(config, identity, start),
        shards={config.shards: identity},
        init=start.facts(),
        datasets=datasets([config.shards], start.file),
        command=command,
        ignore=IGNORED_BY_SIGNATURE,
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
    return signature(that_counts(plain(config)) | by_content, IGNORED_BY_SIGNATURE)
