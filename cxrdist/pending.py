"""What can be checked of a run whose inputs a job before it may still have to make. Free of torch.

What is there already is looked at as for a run that starts now; what is not is taken to come.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from cxrdist.core import hub, initialisation, named_inits, shard_sets
from cxrdist.errors import InputError
from cxrdist.finetune import input_checks
from cxrdist.finetune.config import FinetuneConfig, check_head, words
from cxrdist.pretrain.config import PretrainConfig, check_batch, check_pool, places_of
from cxrdist.pretrain.union import check_different
from results.run import Run


def card(place: str) -> Any:
    """The card of a shard set, or None where it is yet to be made (or lies behind a URL that does not answer).

    Raises:
        InputError: a card that is damaged.
    """
    from shards import FailedError
    from shards.format import CARD
    from shards.read.card import local

    place = shard_sets.absolute(place)
    folder = local(place)
    if folder is not None:
        return shard_sets.card(place) if (folder / CARD).is_file() else None
    with contextlib.suppress(InputError, ValueError, FailedError):
        return shard_sets.card(place)
    return None


def check_trial(config: FinetuneConfig) -> None:
    """Refuse a trial that what is there of its inputs cannot serve.

    Raises:
        InputError: see `identity.resolve` and `input_checks.check_sets`.
    """
    check_head(config)
    config = named_inits.expanded(config)
    if (start := _start(config)) is not None:
        initialisation.check_start(config, start)
    own = card(config.shards)
    if own is None:
        return
    input_checks.check_card(config, own)
    for place in words(config.eval_shards) or []:
        if (other := card(place)) is not None:
            input_checks.check_test_set(config, own, other, place)


def check_pretraining(config: PretrainConfig) -> None:
    """Refuse a pretraining that what is there of its inputs cannot serve.

    Raises:
        InputError: weights of another network; a pool or batch that the shard set does not have.
    """
    config = named_inits.expanded(config)
    if (start := _start(config)) is not None:
        initialisation.check_weights(config, start)
    places = places_of(config)
    cards = [card(place) for place in places]
    for found, place in zip(cards, places, strict=True):
        if found is not None:
            check_pool(config.pool, found, place)
    if all(found is not None for found in cards):
        check_different(cards, places)
        check_batch(config, [found.counts["train"]["n"] for found in cards])


def _start(config: FinetuneConfig | PretrainConfig) -> initialisation.Initialisation | None:
    """What a run starts from, or None where its weights are yet to be made.

    Raises:
        InputError: no file of weights, or weights of another architecture.
    """
    if config.init.startswith(hub.SCHEME):
        return initialisation.describe(config.init)
    path = Path(config.init).expanduser()
    if config.init in initialisation.NAMED_INITS:
        return initialisation.describe(config.init)
    if path.is_file() or Run(path).encoder.is_file():
        initialisation.check_init(str(path), config.arch)
        return initialisation.describe(str(path))
    return None
