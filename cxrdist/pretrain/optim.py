"""Optimisers, what they let decay, and the learning-rate schedule."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from cxrdist.core.weight_decay import split_decay
from cxrdist.errors import InputError
from cxrdist.pretrain.config import OptimConfig

DEFAULTS = {"lars": (0.3, 1e-6), "adamw": (5e-4, 0.05), "sgd": (0.06, 1e-4)}
"""Learning rate at a global batch of 256, and weight decay, where the configuration leaves them None."""
_REFERENCE_BATCH = 256


def parameter_groups(modules: Iterable[nn.Module], weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: what decays, and what does not (see `split_decay`)."""
    parts = [split_decay(module) for module in modules]
    decayed = [parameter for part, _ in parts for parameter in part]
    plain = [parameter for _, part in parts for parameter in part]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


def build_optimizer(config: OptimConfig, modules: Iterable[nn.Module], on_gpu: bool = False) -> torch.optim.Optimizer:
    """The optimiser for the parameters of `modules`; `learning_rate` sets its rate before every step.

    LARS is timm's: it scales the steps of what decays by the trust ratio, whatever the decay is; the rest (biases,
    normalisation) gets plain SGD steps, as in SimCLR.

    Args:
        config: of the optimiser.
        modules: whose parameters it moves.
        on_gpu: they lie on a GPU, where starting a kernel for every parameter takes longer than its work: adamw takes
            one kernel for all of them (fused), sgd and LARS one for each operation on all of them (foreach), but for
            LARS's product with the trust ratios.
    """
    if config.name not in DEFAULTS:
        raise InputError(f"optim.name {config.name!r} is unknown; use {', '.join(DEFAULTS)}")
    decay = DEFAULTS[config.name][1] if config.weight_decay is None else config.weight_decay
    groups = parameter_groups(modules, decay)
    if config.name == "lars":
        from timm.optim.lars import Lars

        groups[0]["always_adapt"] = True  # timm would take a decay of 0 for a group to be left alone
        momentum: Any = config.momentum  # annotated as int in timm
        return Lars(groups, lr=1.0, momentum=momentum, foreach=on_gpu)
    several = True if on_gpu else None  # None: torch's choice
    if config.name == "sgd":
        # Not fused: torch's fused SGD skips a first step whose scaled gradient is not finite (fp16), but keeps the
        # uninitialised memory that it took for the momentum.
        return torch.optim.SGD(groups, lr=1.0, momentum=config.momentum, nesterov=config.momentum > 0, foreach=several)
    return torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.999), fused=several)


def peak_rate(config: OptimConfig, global_batch: int) -> float:
    """Learning rate after the warm-up: linear (Goyal et al. 2017), square-root or no scaling with the batch."""
    rate = DEFAULTS[config.name][0] if config.lr is None else config.lr
    ratio = global_batch / _REFERENCE_BATCH
    return rate * {"linear": ratio, "sqrt": math.sqrt(ratio), "none": 1.0}[config.lr_scaling]


def learning_rate(config: OptimConfig, global_batch: int, step: int, steps: int, steps_per_epoch: float) -> float:
    """Learning rate of a step (0-based) of a run of `steps`: linear warm-up, then cosine or constant."""
    peak = peak_rate(config, global_batch)
    warmup = min(config.warmup_epochs * steps_per_epoch, steps / 10)
    if step < warmup:
        return peak * (step + 1) / math.ceil(warmup)
    if config.schedule == "constant":
        return peak
    progress = (step - warmup) / max(1.0, steps - warmup)
    low = config.final_lr
    return peak * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group the rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate
