"""What a pretraining on several shard sets is called, and which pixels it normalises to. Free of torch.

Several sets are normalised over their union: mean and deviation of all train images, those of each set weighed by how
often its images are drawn. The encoder's metadata hold these numbers, so that whoever uses it normalises likewise. With
`normalise set` each image is normalised by the numbers of its own set; the metadata hold them beside the union's.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cxrdist.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from shards import ShardSet, ShardUnion


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """What is learnt from, as results and encoders name it."""

    name: str
    """Of the shard set; nih+chexpert for several."""
    sha256: str
    """Of the set's card; for several, of their hashes in order."""
    image_size: int
    """Shortest stored side, pixels; the smallest of several."""
    mean: float
    """Of the train pixels in [0, 1]."""
    std: float
    """Their deviation."""


def facts_of(cards: Sequence[Any], weights: Sequence[float] | None = None) -> DataFacts:
    """Facts of one or several shard sets.

    Args:
        cards: theirs.
        weights: how often images are drawn from each, relative to the others; None: by their numbers of train images.
    """
    if len(cards) == 1:
        card = cards[0]
        return DataFacts(name=card.name, sha256=card.sha256, image_size=card.image_size, mean=card.mean, std=card.std)
    counts = [card.counts["train"]["n"] for card in cards] if weights is None else weights
    shares = [count / sum(counts) for count in counts]
    mean = sum(share * card.mean for share, card in zip(shares, cards, strict=True))
    squares = sum(share * (card.std**2 + card.mean**2) for share, card in zip(shares, cards, strict=True))
    return DataFacts(
        name="+".join(card.name for card in cards),
        sha256=hashlib.sha256("\n".join(card.sha256 for card in cards).encode()).hexdigest(),
        image_size=min(card.image_size for card in cards),
        mean=mean,
        std=math.sqrt(squares - mean**2),
    )


def union_facts(cards: Sequence[Any]) -> dict[str, dict[str, str]]:
    """What a report says of several sets, by the hash of their union; nothing of one set, which has its own card."""
    if len(cards) == 1:
        return {}
    facts, names = facts_of(cards), ", ".join(card.name for card in cards)
    terms = {"source": f"several shard sets in one pretraining: {names}", "licence": f"those of {names}, all of them"}
    return {facts.sha256: {"name": facts.name, **terms}}


def check_different(cards: Sequence[Any], places: Sequence[str]) -> None:
    """Refuse one shard set at two places: its images would be learnt from twice as often.

    Raises:
        InputError: naming both places.
    """
    seen: dict[str, str] = {}
    for card, place in zip(cards, places, strict=True):
        if card.sha256 in seen:
            raise InputError(
                f"{seen[card.sha256]} and {place} hold the same shard set; give it more weight by shard_weights"
            )
        seen[card.sha256] = place


def own_scale(shards: ShardSet | ShardUnion, positions: np.ndarray) -> np.ndarray:
    """Mean and deviation of the train pixels of the set that each sample is of.

    Args:
        shards: the sets.
        positions: of B samples, int64 (B,).

    Returns:
        float32 (B, 2), of pixels in [0, 1].
    """
    import numpy as np

    from shards import ShardUnion

    sets = shards.sets if isinstance(shards, ShardUnion) else (shards,)
    owner = np.searchsorted(np.cumsum([len(one) for one in sets]), positions, side="right")
    return np.array([(one.card.mean, one.card.std) for one in sets], dtype=np.float32)[owner]


def per_set_facts(shards: ShardUnion) -> dict[str, str]:
    """What an encoder's metadata say of sets that were normalised each by itself."""
    cards = [one.card for one in shards.sets]
    own = [{"name": card.name, "sha256": card.sha256, "mean": card.mean, "std": card.std} for card in cards]
    return {"normalise": "set", "sets": json.dumps(own)}
