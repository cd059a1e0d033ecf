"""SimCLR (Chen et al., "A simple framework for contrastive learning", ICML 2020): its projection heads and its loss.

Shapes: B local batch, V = 2B views, D features, E embedding width.
"""

from __future__ import annotations

import torch
from torch import nn

from cxrdist.pretrain.config import HeadConfig
from cxrdist.pretrain.losses.nt_xent import nt_xent


def build_projection(config: HeadConfig, features: int) -> nn.Module:
    """The head (V, D) -> (V, E) of Chen et al. 2020 with 2 or 3 layers, or with dropout."""
    hidden = config.hidden or features

    def layer(width: int) -> list[nn.Module]:
        norm = [nn.BatchNorm1d(hidden)] if config.norm else []
        return [nn.Linear(width, hidden, bias=not config.norm), *norm, nn.ReLU(inplace=True)]

    if config.kind == "simclr3":
        return nn.Sequential(*layer(features), *layer(hidden), nn.Linear(hidden, config.dim))
    dropout = [nn.Dropout(config.dropout)] if config.kind == "dropout" else []
    return nn.Sequential(*layer(features), *dropout, nn.Linear(hidden, config.dim))


class SimCLR:
    """The method: a projection head behind the backbone, and NT-Xent.

    Args:
        config: of the head.
        temperature: of the loss.
    """

    remedy = "raise temperature"

    def __init__(self, config: HeadConfig, temperature: float) -> None:
        self.config, self.temperature = config, temperature

    def head(self, features: int) -> nn.Module:
        """See `build_projection`."""
        return build_projection(self.config, features)

    def loss(
        self, first: torch.Tensor, second: torch.Tensor, *, images: torch.Tensor | None = None, gather: bool = True
    ) -> torch.Tensor:
        """See `cxrdist.pretrain.losses.nt_xent.nt_xent`."""
        return nt_xent(first, second, self.temperature, gather=gather, images=images)
