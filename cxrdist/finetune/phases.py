"""What a mode trains and when: phases, their rates, the order of the images, the optimiser.

Shapes: n training samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from cxrdist.core.weight_decay import split_decay
from cxrdist.finetune.config import FinetuneConfig, weight_decay
from shards import Order


@dataclass(frozen=True)
class Phase:
    """A stretch of steps in which the same parameters are trained at the same peak rates."""

    steps: int
    last: int | None
    """Stages of the backbone that are trained: 0 none, None all."""
    backbone_lr: float
    head_lr: float
    layers: bool = False
    """Whether `last` counts layers instead of stages."""


def batch_size(config: FinetuneConfig, n: int) -> int:
    """Images a step: no more than there are, but two at least, which BatchNorm needs."""
    return max(2, min(config.global_batch, n))


def order_of(config: FinetuneConfig, n: int) -> Order:
    """Which of n training samples stand in which step."""
    return Order(n, seed=config.seed, global_batch=batch_size(config, n))


def phases(config: FinetuneConfig, n: int) -> list[Phase]:
    """The phases of a mode, their steps counted for n training samples."""
    per_epoch = math.ceil(n / batch_size(config, n))
    total = max(config.epochs * per_epoch, config.min_steps)
    rate = config.optim.lr
    factor = 1.0 if config.init == "scratch" else config.optim.backbone_lr_factor
    if config.mode == "linear":
        return [Phase(total, 0, rate, rate)]
    if config.mode == "last_n":
        layers = config.last_layers is not None
        return [Phase(total, config.last_layers or config.last_n, rate * factor, rate, layers)]
    if config.mode == "full":
        return [Phase(total, None, rate * factor, rate)]
    first = min(max(config.head_epochs * per_epoch, math.ceil(config.min_steps / 4)), total - 1)
    lower = rate * config.optim.backbone_lr_factor
    return [Phase(first, 0, rate, rate), Phase(total - first, None, lower, lower)]


def schedule(config: FinetuneConfig, phase: Phase, step: int) -> float:
    """Share of the peak rate at a step of a phase: warm-up from zero, then cosine to zero or constant."""
    warm = config.optim.warmup * phase.steps
    if step < warm:
        return (step + 1) / (warm + 1)
    if config.optim.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1.0, phase.steps - warm)))


def optimiser(config: FinetuneConfig, network: nn.Module, head: nn.Module, phase: Phase) -> torch.optim.Optimizer:
    """The optimiser of a phase: head and backbone with their own rates; what decays says `split_decay`."""
    in_head = {id(parameter) for parameter in head.parameters()}
    decayed, plain = split_decay(network)
    groups = []
    for is_head, rate in ((True, phase.head_lr), (False, phase.backbone_lr)):
        for parameters, decay in ((decayed, weight_decay(config.optim)), (plain, 0.0)):
            own = [parameter for parameter in parameters if (id(parameter) in in_head) == is_head]
            if own:
                groups.append({"params": own, "peak": rate, "lr": rate, "weight_decay": decay})
    if config.optim.name == "sgd":
        # Not fused, which loses its momentum at a first step that fp16 skips: see cxrdist.pretrain.optim.
        several = True if next(network.parameters()).is_cuda else None  # None: torch's choice
        return torch.optim.SGD(groups, momentum=config.optim.momentum, foreach=several)
    # fused: one pass over the weights instead of five
    return (torch.optim.Adam if config.optim.name == "adam" else torch.optim.AdamW)(groups, fused=True)
