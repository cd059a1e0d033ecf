"""VICReg (Bardes, Ponce and LeCun, "Variance-invariance-covariance regularization", ICLR 2022).

Shapes: B local batch, G global batch = world x B, D width of the embedding.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from cxrdist.core.distributed import gather_views
from cxrdist.pretrain.methods import VICRegConfig

_EPSILON = 1e-4  # added to the variance under the root, as in the paper


def vicreg(
    z1_BD: torch.Tensor,
    z2_BD: torch.Tensor,
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
    gather: bool = True,
) -> torch.Tensor:
    """The loss of VICReg over the global batch, in float32 (float64 for float64 input).

    invariance * s(Z1, Z2) + variance * (v(Z1) + v(Z2)) + covariance * (c(Z1) + c(Z2)), where
    s is the mean squared difference of the two views' entries,
    v the mean over dimensions of max(0, 1 - sqrt(var + 0.0001)), var over the batch with n - 1,
    c the sum of the squared covariances (with n - 1) of different dimensions, divided by D.

    This is the paper's algorithm 1, for which its coefficients 25, 25 and 1 were found. Section 4.1 defines s
    without the mean over dimensions; the authors' program has the mean of the two v, not their sum (a `variance` of
    12.5 here).

    Args:
        z1_BD: embeddings of the first views, any floating type.
        z2_BD: embeddings of the second views of the same images, in the same order.
        invariance: coefficient of s.
        variance: of v.
        covariance: of c.
        gather: take the statistics over all ranks where torch.distributed runs with more than one. All ranks must call
            it then, with equal B.

    Returns:
        A scalar, the same on every rank. Its gradient is scaled so that averaging parameter gradients over ranks, as
        data parallelism does, gives the gradient of the global loss.

    Raises:
        ValueError: shapes differ, or there are fewer than two images.
    """
    if z1_BD.shape != z2_BD.shape or z1_BD.ndim != 2:
        raise ValueError(f"two (B, D) embeddings of the same shape are needed, not {z1_BD.shape} and {z2_BD.shape}")
    world = dist.get_world_size() if gather and dist.is_available() and dist.is_initialized() else 1
    if len(z1_BD) * world < 2:
        raise ValueError("VICReg takes statistics over images: at least two are needed")
    with torch.autocast(z1_BD.device.type, enabled=False):
        z = torch.stack([z1_BD, z2_BD])
        z = z if z.dtype == torch.float64 else z.float()
        first, second = (_Gather.apply(z, world) if world > 1 else z).unbind()
        loss = invariance * F.mse_loss(first, second)
        for view in (first, second):
            centred = view - view.mean(0)
            loss = loss + variance * _variance(centred) + covariance * _covariance(centred)
    return loss


def _variance(z_GD: torch.Tensor) -> torch.Tensor:
    """How far the deviations of centred dimensions fall short of 1, on average."""
    variances = z_GD.square().sum(0) / (len(z_GD) - 1)
    return F.relu(1 - (variances + _EPSILON).sqrt()).mean()


def _covariance(z_GD: torch.Tensor) -> torch.Tensor:
    """Sum of the squared covariances of different, centred dimensions, divided by D.

    The squares of Z^T Z (D, D) sum to those of Z Z^T (G, G): the smaller of the two is computed.
    """
    count, width = z_GD.shape
    scale = width * (count - 1) ** 2
    if count > width:
        return (z_GD.T @ z_GD).fill_diagonal_(0).square().sum() / scale
    diagonal = z_GD.square().sum(0)
    return ((z_GD @ z_GD.T).square().sum() - diagonal.square().sum()) / scale


class _Gather(torch.autograd.Function):
    """(2, B, D) of each rank -> (2, G, D). Each computes the whole loss from it, and so its own rows' gradient."""

    @staticmethod
    def forward(ctx: Any, z: torch.Tensor, world: int) -> torch.Tensor:
        ctx.world, ctx.local = world, z.shape[1]
        return gather_views(z, world)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        at = dist.get_rank() * ctx.local
        return grads[0][:, at : at + ctx.local] * ctx.world, None  # averaging over ranks will divide by their number


class VICReg:
    """The method: an expander behind the backbone, and the loss.

    Args:
        config: coefficients, and widths of the expander.
    """

    remedy = "raise vicreg.variance"

    def __init__(self, config: VICRegConfig) -> None:
        self.config = config

    def head(self, features: int) -> nn.Module:
        """The expander (V, features) -> (V, D): linear layers, with BatchNorm and ReLU between them."""
        layers: list[nn.Module] = []
        widths = [features, *self.config.expander]
        for before, after in zip(widths[:-2], widths[1:-1], strict=True):
            layers += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU(inplace=True)]
        return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1], bias=False))

    def loss(
        self, first: torch.Tensor, second: torch.Tensor, *, images: torch.Tensor | None = None, gather: bool = True
    ) -> torch.Tensor:
        """See `vicreg`; an image that occurs twice in the batch counts twice in its statistics."""
        del images
        config = self.config
        return vicreg(
            first,
            second,
            invariance=config.invariance,
            variance=config.variance,
            covariance=config.covariance,
            gather=gather,
        )
