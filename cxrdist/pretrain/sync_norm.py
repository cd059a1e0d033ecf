"""BatchNorm over the global batch on any device: torch's SyncBatchNorm runs on GPUs only.

Shapes: x (B, C) or (B, C, H, W); statistics per channel over all ranks' B, H and W.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from cxrdist.core.distributed import Ranks


class GlobalBatchNorm(nn.Module):
    """BatchNorm with statistics over all ranks; state dict as torch's BatchNorm."""

    def __init__(self, norm: Any, world: int) -> None:
        """Take over a BatchNorm's parameters and buffers, and the activation that timm builds into some of them."""
        super().__init__()
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean: torch.Tensor
        self.running_var: torch.Tensor
        self.num_batches_tracked: torch.Tensor
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(norm, name))
        self.eps, self.momentum, self.world = norm.eps, 0.1 if norm.momentum is None else norm.momentum, world
        self.drop, self.act = getattr(norm, "drop", nn.Identity()), getattr(norm, "act", nn.Identity())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise, with global statistics while training and the running ones otherwise."""
        with torch.autocast(x.device.type, enabled=False):
            if self.training:
                y, mean, var, count = _Normalise.apply(_wide(x), self.weight, self.bias, self.eps, self.world)
                with torch.no_grad():
                    self.num_batches_tracked += 1
                    self.running_mean.lerp_(mean, self.momentum)
                    self.running_var.lerp_(var * (count / (count - 1).clamp(min=1)), self.momentum)
            else:
                y = nn.functional.batch_norm(
                    _wide(x), self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
                )
        return self.act(self.drop(y.to(x.dtype)))


def _wide(x: torch.Tensor) -> torch.Tensor:
    return x if x.dtype == torch.float64 else x.float()


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, bias: Any, eps: float, world: int) -> Any:
        dims = [d for d in range(x.ndim) if d != 1]
        shape = [1, -1] + [1] * (x.ndim - 2)
        # Mean and squared deviations per rank, united as Chan et al. (1979): no cancellation, whatever the mean. Sums
        # are float64, so that the statistics, once rounded to float32, do not depend on how the batch was divided: the
        # layers behind would magnify their last bits (few samples, features that hardly differ) a thousandfold.
        local_var, local_mean = torch.var_mean(x.double(), dims, correction=0)
        count = x.numel() / x.shape[1]
        facts = torch.stack([local_mean, local_var, torch.full_like(local_mean, count)])
        parts = [facts]
        if world > 1:
            parts = [torch.empty_like(facts) for _ in range(world)]
            dist.all_gather(parts, facts)
        means, variances, counts = torch.stack(parts).unbind(1)  # (world, C) each
        total = counts.sum(0)
        mean = (means * counts).sum(0) / total
        var = ((variances + (means - mean) ** 2) * counts).sum(0) / total
        scale = torch.rsqrt(var + eps).to(x.dtype)
        normal = (x - mean.to(x.dtype).view(shape)) * scale.view(shape)
        ctx.save_for_backward(normal, scale, weight, total)
        ctx.dims, ctx.shape, ctx.world = dims, shape, world
        out = normal * weight.view(shape) + bias.view(shape)
        result = (out, mean.to(x.dtype), var.to(x.dtype), total.to(x.dtype))
        ctx.mark_non_differentiable(*result[1:])
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        normal, scale, weight, total = ctx.saved_tensors
        grad = grads[0]
        grad_bias = grad.sum(ctx.dims, dtype=torch.float64)
        grad_weight = (grad * normal).sum(ctx.dims, dtype=torch.float64)
        sums = torch.stack([grad_bias, grad_weight])
        if ctx.world > 1:
            dist.all_reduce(sums)
        mean_grad, mean_product = (sums / total).to(grad.dtype)
        inner = grad - mean_grad.view(ctx.shape) - normal * mean_product.view(ctx.shape)
        return (
            inner * (weight * scale).view(ctx.shape),
            grad_weight.to(grad.dtype),
            grad_bias.to(grad.dtype),
            None,
            None,
        )


def synchronise(module: nn.Module, ranks: Ranks) -> nn.Module:
    """Replace every BatchNorm of a module by one with global statistics; state dict names stay the same."""
    if ranks.device.type == "cuda":
        from timm.layers.norm_act import convert_sync_batchnorm

        return convert_sync_batchnorm(module)
    if isinstance(module, _BatchNorm):
        return GlobalBatchNorm(module, ranks.world)
    for name, child in module.named_children():
        changed = synchronise(child, ranks)
        if changed is not child:
            setattr(module, name, changed)
    return module
