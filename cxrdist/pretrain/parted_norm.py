"""BatchNorm's running statistics of a batch that goes through a network in parts: one update, over the whole batch.

Left alone, BatchNorm would update them once for every part and every pass, with the few samples of a part each time.

Shapes: V views of the whole batch, p of a part, C channels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from cxrdist.pretrain.sync_norm import GlobalBatchNorm


class PartedNorm:
    """The BatchNorm layers of a network, for batches in parts.

    What normalises a part stays the part's own mean and variance; only the running statistics, which evaluation uses,
    are those of all V views: united from the parts' as Chan et al. (1979), so the first BatchNorm of a network gets
    exactly the update of the undivided batch, and deeper ones that of the activations the parts had there.

    Args:
        model: the network, not compiled.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        found = [module for module in model.modules() if isinstance(module, (_BatchNorm, GlobalBatchNorm))]
        self._norms: list[Any] = [norm for norm in found if norm.running_mean is not None]
        self._positions: list[int] = []

    @contextlib.contextmanager
    def measuring(self, parts: tuple[torch.Tensor, ...]) -> Iterator[None]:
        """Around the first pass; `measured` must follow each part. One update is made at the end.

        Args:
            parts: the views (p, 1, s, s) of each part.
        """
        if not self._positions:
            self._positions = self._count_positions(parts[0][:1])
        self._sizes: list[int] = []
        self._seen: list[list[torch.Tensor]] = [[] for _ in self._norms]
        before = [(norm.running_mean.clone(), norm.running_var.clone()) for norm in self._norms]
        with self._momentum(1.0):  # the running statistics then are those of the part that came last
            yield
        for index, (norm, (mean, var)) in enumerate(zip(self._norms, before, strict=True)):
            batch_mean, batch_var = self._united(index)
            share = 1 / float(norm.num_batches_tracked + 1) if norm.momentum is None else norm.momentum
            norm.running_mean.copy_(mean.lerp_(batch_mean.to(mean.dtype), share))
            norm.running_var.copy_(var.lerp_(batch_var.to(var.dtype), share))
            norm.num_batches_tracked += 1

    def measured(self, part: torch.Tensor) -> None:
        """Take down the statistics of a part (p, 1, s, s) that has just gone through."""
        self._sizes.append(len(part))
        for seen, norm in zip(self._seen, self._norms, strict=True):
            seen.append(torch.stack([norm.running_mean, norm.running_var]).double())

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """Around a pass that must leave the running statistics as they are."""
        with self._momentum(0.0):
            yield

    @contextlib.contextmanager
    def _momentum(self, value: float) -> Iterator[None]:
        before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in self._norms]
        for norm in self._norms:
            norm.momentum = value
        try:
            yield
        finally:
            for norm, (momentum, count) in zip(self._norms, before, strict=True):
                norm.momentum = momentum
                norm.num_batches_tracked.copy_(count)

    def _united(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and unbiased variance (C,) of a layer over all parts."""
        means, variances = torch.stack(self._seen[index]).unbind(1)  # (parts, C) each
        positions = self._positions[index] * _world(self._norms[index])
        counts = means.new_tensor([size * positions for size in self._sizes])[:, None]
        total = counts.sum()
        mean = (means * counts).sum(0) / total
        squares = variances * (counts - 1) + (means - mean) ** 2 * counts
        return mean, squares.sum(0) / (total - 1).clamp(min=1)

    @torch.no_grad()
    def _count_positions(self, view: torch.Tensor) -> list[int]:
        """Values that each layer sees per view and channel: the height times the width of its input."""
        found: dict[int, int] = {}

        def look(norm: Any, inputs: tuple[torch.Tensor, ...]) -> None:
            found[id(norm)] = inputs[0][0, 0].numel()

        hooks = [norm.register_forward_pre_hook(look) for norm in self._norms]
        training = self._model.training
        try:
            self._model.eval()(view)
        finally:
            self._model.train(training)
            for hook in hooks:
                hook.remove()
        return [found.get(id(norm), 1) for norm in self._norms]


def _world(norm: nn.Module) -> int:
    """Ranks whose views a layer normalises together."""
    if isinstance(norm, nn.SyncBatchNorm):
        return dist.get_world_size() if dist.is_initialized() else 1
    return norm.world if isinstance(norm, GlobalBatchNorm) else 1
