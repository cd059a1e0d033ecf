"""Which samples a run learns from, and which it validates on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cxrdist.core import rng
from cxrdist.errors import InputError
from cxrdist.pretrain.config import PoolConfig
from cxrdist.pretrain.union import DataFacts, facts_of
from shards import ShardSet, ShardUnion


@dataclass(frozen=True)
class Pool:
    """Samples of a pretraining run."""

    train: ShardSet | ShardUnion
    """What is learnt from."""
    val: ShardSet | ShardUnion | None
    """What the validation loss is measured on; None: nothing."""
    facts: DataFacts
    """Name, content, size and pixels of what is learnt from."""


def open_pools(
    paths: list[str],
    config: PoolConfig,
    seed: int,
    *,
    weights: list[float] | None = None,
    stage: str = "none",
    sha256: list[str | None] | None = None,
) -> Pool:
    """The samples of one or several shard sets, each with its own rules, held-out share and staging.

    Args:
        paths: the shard sets.
        config: subset rules and the held-out share, applied to each set.
        seed: as for `open_pool`.
        weights: of the sets, see `shards.WeightedOrder`; None: each counts by its images.
        stage: as for `ShardSet`.
        sha256: as for `ShardSet`, one for each path.

    Raises:
        InputError: see `open_pool`.
    """
    hashes = sha256 or [None] * len(paths)
    pools = [open_pool(path, config, seed, stage=stage, sha256=one) for path, one in zip(paths, hashes, strict=True)]
    if len(pools) == 1:
        return pools[0]
    held = [pool.val for pool in pools if isinstance(pool.val, ShardSet)]
    train = [pool.train for pool in pools if isinstance(pool.train, ShardSet)]
    facts = facts_of([shards.card for shards in train], weights)
    return Pool(ShardUnion(train), ShardUnion(held) if held else None, facts)


def open_pool(
    path: str,
    config: PoolConfig,
    seed: int,
    *,
    stage: str = "none",
    size: int | None = None,
    sha256: str | None = None,
) -> Pool:
    """The training and validation samples of a shard set.

    Args:
        path: the shard set.
        config: subset rules and the held-out share.
        seed: decides which patients are kept and held out.
        stage: as for `ShardSet`.
        size: as for `ShardSet`.
        sha256: as for `ShardSet`.

    Raises:
        InputError: another set than `sha256` says, a rule names a label that the set does not have, or nothing is left.
    """
    train = ShardSet(path, "train", stage=stage, size=size, sha256=sha256)
    rows = keep_rows(train, config, seed)
    if config.holdout is None and "val" in train.card.splits:
        val = ShardSet(path, "val", stage=stage, size=size, sha256=train.card.sha256)
        return Pool(train.select(rows), val if len(val) else None, facts_of([train.card]))
    share = 0.1 if config.holdout is None else config.holdout
    held = take_share(train, rows, share, seed, step=1)
    rest = np.setdiff1d(rows, held, assume_unique=True)
    if not len(rest):
        raise InputError(f"{path}: a holdout of {share} leaves nothing to learn from; lower pool.holdout")
    return Pool(train.select(rest), train.select(held) if len(held) else None, facts_of([train.card]))


def keep_rows(shards: ShardSet, config: PoolConfig, seed: int) -> np.ndarray:
    """Rows of a split that the rules keep, int64, in index order.

    Each sample belongs to the rule with the largest share among those it meets. Of a rule's samples, whole patients are
    taken in a random order until the share is reached, so a smaller share is always inside a larger one.
    """
    rows = shards.rows
    if not config.keep:
        return rows
    share = np.full(len(rows), -1.0)
    for rule, value in config.keep.items():
        label = rule.removeprefix("!")
        if label not in shards.labels:
            raise InputError(f"pool.keep names {label!r}; {shards.path} has the labels {', '.join(shards.labels)}")
        wanted = 0 if rule.startswith("!") else 1
        share[(shards.labels_matrix([label])[:, 0] == wanted) & (share < value)] = value
    share[share < 0] = config.other
    parts = [take_share(shards, rows[share == value], value, seed, step=0) for value in np.unique(share)]
    kept = np.sort(np.concatenate(parts))
    if not len(kept):
        raise InputError(f"pool.keep leaves no sample of {shards.path}")
    return kept


def take_share(shards: ShardSet, rows: np.ndarray, share: float, seed: int, step: int) -> np.ndarray:
    """Whole patients in a random order until they hold `share` of the rows (rounded), int64, sorted."""
    target = round(share * len(rows))
    if target >= len(rows) or target == 0:
        return rows if target else rows[:0]
    patients = shards.index.patient[rows]
    luck = rng.uniform(seed, rng.Stream.POOL, step, int(patients.max()) + 1, 1)[:, 0][patients]
    by_luck = np.lexsort((rows, luck))
    ends = np.flatnonzero(np.diff(luck[by_luck], append=2.0))  # last sample of each patient
    last = ends[np.searchsorted(ends, target - 1)]
    return np.sort(rows[by_luck[: last + 1]])
