"""What a cell will cost, before it runs: images through the network, and hours once a rate is known.

A forward pass of one image counts 1, forward and backward 3 (backward costs twice the forward pass). Where cells of the
same sweep have finished, their time gives the rate; before that a rough one is assumed, and said to be.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from cxrdist.core.shard_sets import card
from cxrdist.finetune.config import FinetuneConfig, words
from cxrdist.sweep.folder import SweepCell

_GMACS_AT_224 = {
    "resnet10t": 1.1,
    "resnet18": 1.8,
    "resnet34": 3.7,
    "resnet50": 4.1,
    "resnet101": 7.8,
    "densenet121": 2.9,
    "convnext_tiny": 4.5,
    "vit_tiny_patch16_224": 1.3,
    "vit_small_patch16_224": 4.6,
    "vit_base_patch16_224": 17.6,
    "small_cnn": 0.7,
    "patch_features": 1.4,
}
"""Multiply-adds of one forward pass, in 10^9, as published with the networks (the last two: counted)."""

CPU_GFLOPS, GPU_GFLOPS = 100.0, 30_000.0
"""Assumed arithmetic rate of one core and of one GPU in training, until finished cells give a measured one."""

_FIXED_SECONDS = 0.5


@dataclass(frozen=True)
class Estimate:
    """Cost of some cells."""

    images: float
    """Forward passes of one image."""
    seconds: float
    """Of one trial at a time."""
    measured: bool
    """True where finished cells gave the rate."""


def images(config: FinetuneConfig) -> float:
    """Forward-pass equivalents of one trial, from the card's counts."""
    counts = card(config.shards).counts
    n = max(2, round(counts.get("train", {"n": 0})["n"] * config.label_fraction))
    val = counts.get("val", {"n": 0})["n"]
    tests = [counts.get("test", {"n": 0})["n"]]
    tests += [card(path).counts.get("test", {"n": 0})["n"] for path in words(config.eval_shards) or []]
    if config.mode == "linear":  # every split once, whatever the fraction: the cells of an encoder share them
        return counts.get("train", {"n": 0})["n"] + val + sum(tests)
    size = max(2, min(config.global_batch, n))
    per_epoch = math.ceil(n / size)
    steps = max(config.epochs * per_epoch, config.min_steps)
    validations = min(12, math.ceil(steps / per_epoch))
    share = 3.0 if config.mode in ("full", "two_stage") else 2.0
    return steps * size * share + (validations + 1) * val + sum(tests)


def gflops(config: FinetuneConfig) -> float:
    """Arithmetic of one forward pass, 10^9 operations; a small stem up to 32 pixels keeps 16 times the positions."""
    size = config.image_size or 224
    known = _GMACS_AT_224.get(config.arch or "", 4.0)
    small = size <= 32 and config.stem != "standard" and (config.arch or "").startswith(("resnet", "densenet"))
    dense = 16 if small else 1
    return 2 * known * (size / 224) ** 2 * dense


def work(cell: SweepCell) -> float:
    """A number that grows with a cell's time, to weigh cells against each other: 10^9 operations, and a fixed part."""
    fixed = _FIXED_SECONDS * CPU_GFLOPS
    return fixed if cell.config.mode == "linear" else images(cell.config) * gflops(cell.config) + fixed


def encoder_key(config: FinetuneConfig) -> str:
    """Linear probes with the same key read the same features."""
    parts = ("init", "arch", "stem", "image_size", "shards", "precision", "kmeans")
    return "|".join(str(getattr(config, part)) for part in parts)


def _shared(cells: list[SweepCell]) -> list[FinetuneConfig]:
    """One configuration for every set of features that the linear cells share."""
    return list({encoder_key(cell.config): cell.config for cell in cells if cell.config.mode == "linear"}.values())


def total_images(cells: list[SweepCell]) -> float:
    """Forward-pass equivalents of some cells, features counted once."""
    alone = sum(images(cell.config) for cell in cells if cell.config.mode != "linear")
    return alone + sum(images(config) for config in _shared(cells))


def total_work(cells: list[SweepCell]) -> float:
    """The work of some cells, features counted once."""
    return sum(map(work, cells)) + sum(images(config) * gflops(config) for config in _shared(cells))


def estimate(cells: Iterable[SweepCell], finished: Iterable[SweepCell], gpu: bool, cores: int = 1) -> Estimate:
    """Cost of `cells`, at the rate of `finished` ones or at an assumed one."""
    cells, finished = list(cells), list(finished)
    spent = sum(float(cell.run.read_done().get("wall_seconds") or 0) for cell in finished)
    rate = total_work(finished) / spent if spent else GPU_GFLOPS if gpu else CPU_GFLOPS * cores
    return Estimate(images=total_images(cells), seconds=total_work(cells) / rate, measured=bool(spent))


def spoken(seconds: float) -> str:
    """A duration as people say it: 45 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
