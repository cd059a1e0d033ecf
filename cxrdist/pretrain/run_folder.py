"""A pretraining's run folder: the configuration checked, the run made, and what identifies it. Free of torch."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from cxrdist.core import named_inits, pixel_scale
from cxrdist.core.configs import METHOD
from cxrdist.core.initialisation import NAMED_INITS, Initialisation, check_init, check_weights, describe, located
from cxrdist.core.shard_sets import SCHEME, card, datasets
from cxrdist.errors import InputError
from cxrdist.pretrain.config import (
    IGNORED_BY_SIGNATURE,
    PretrainConfig,
    check_batch,
    check_pool,
    places_of,
    validate,
)
from cxrdist.pretrain.methods import that_counts
from cxrdist.pretrain.union import check_different, union_facts
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
    config, identities, start = resolve(config)
    places = dict(zip(places_of(config), identities, strict=True))
    return Run.create(
        config.out,
        job="pretrain",
        config=plain(config),
        signature=identify(config, identities, start),
        shards=places,
        init=start.facts(),
        datasets=datasets(places, start.file) | union_facts([card(place) for place in places]),
        command=command,
        ignore=IGNORED_BY_SIGNATURE,
    )


def resolve(config: PretrainConfig) -> tuple[PretrainConfig, list[str], Initialisation]:
    """A checked configuration with absolute places, the hashes of its shard sets, and what it starts from.

    Raises:
        InputError: see `create_run`.
    """
    from shards import read_card

    validate(config)
    places = [
        (place if SCHEME in place else str(Path(place).expanduser().resolve())).rstrip("/")
        for place in places_of(config)
    ]
    config = dataclasses.replace(config, shards=places[0] if len(places) == 1 else places)
    cards = [read_card(place) for place in places]
    for held, place in zip(cards, places, strict=True):
        check_pool(config.pool, held, place)
    check_different(cards, places)
    check_batch(config, [held.counts["train"]["n"] for held in cards])
    config = named_inits.expanded(config)
    if config.init not in NAMED_INITS:
        config = dataclasses.replace(config, init=located(config.init))
        if not Path(config.init).exists():
            raise InputError(
                f"--init {config.init} does not exist; use scratch, imagenet, a weights file, a run folder, "
                "hf://owner/name or a name of your list of encoders"
            )
        check_init(config.init, config.arch)
    start = describe(config.init)
    check_weights(config, start)
    if config.normalise == "set":
        _check_own_pixels(config, start)
    return config, [held.sha256 for held in cards], start


def _check_own_pixels(config: PretrainConfig, start: Initialisation) -> None:
    """Refuse to normalise each set by itself for weights that expect another scale.

    Raises:
        InputError: naming the weights.
    """
    if config.init != "scratch" and not start.per_set:
        raise InputError(
            f"normalise set gives each shard set its own scale, but init {config.init} expects the one that it was "
            "trained with; take --normalise union, or --init scratch"
        )


def identify(config: PretrainConfig, shards: list[str] | str, start: Initialisation) -> str:
    """Signature of a resolved configuration: its shard sets and weights file count by content, not by place."""
    content = shards[0] if isinstance(shards, list) and len(shards) == 1 else shards
    by_content = {"shards": content, "init": start.sha256 or config.init, "method": METHOD}
    by_content |= {"init_pixels": start.pixels_that_count(config.init_mean)}
    by_content |= pixel_scale.that_count(config.init, config.arch)
    return signature(that_counts(plain(config)) | by_content, IGNORED_BY_SIGNATURE)
