"""Classifier heads and the loss for many labels, some of them missing.

Shapes: B samples, D features, L labels.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from cxrdist.finetune.config import ClassifierHeadConfig, dropout


class RBFHead(nn.Module):
    """Features (B, D) -> logits (B, L): weighted sums of Gaussian kernels around landmarks; fitted by `rbf_probe`.

    Attributes:
        mean: of the features, (D,).
        inverse: one over their deviations, (D,); 0 for a feature that takes no part.
        landmarks: scaled features of training images, (m, D).
        gamma: of the kernel exp(-gamma |a - b|^2), a scalar.
        weight: (L, m).
        bias: (L,).
    """

    def __init__(self, features: int, labels: int, landmarks: int):
        super().__init__()

        def fixed(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(shape), requires_grad=False)

        self.mean, self.inverse, self.landmarks = fixed(features), fixed(features), fixed(landmarks, features)
        self.gamma, self.weight, self.bias = fixed(), fixed(labels, landmarks), fixed(labels)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits (B, L)."""
        return self.kernel(features) @ self.weight.T + self.bias

    def kernel(self, features: torch.Tensor) -> torch.Tensor:
        """Kernel values (B, m) between features (B, D) and the landmarks."""
        scaled = (features - self.mean) * self.inverse
        squares = scaled.square().sum(1, keepdim=True) + self.landmarks.square().sum(1)
        return torch.exp(-self.gamma * (squares - 2 * scaled @ self.landmarks.T).clamp(min=0))


def build_head(config: ClassifierHeadConfig, features: int, labels: int, landmarks: int = 0) -> nn.Module:
    """Return a module (B, D) -> logits (B, L); `landmarks` is the number of an rbf head's, which its fit decides."""
    if config.kind == "linear":
        return nn.Linear(features, labels)
    if config.kind == "rbf":
        return RBFHead(features, labels, landmarks)
    if config.kind == "mlp":
        return nn.Sequential(
            nn.Linear(features, config.hidden, bias=False),
            nn.BatchNorm1d(config.hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout(config)),
            nn.Linear(config.hidden, labels),
        )
    layers: list[nn.Module] = []
    for _ in range(config.layers):
        # Dropout stands with the ReLU, so that weights keep the names that they have in files made without it.
        after = nn.Sequential(nn.ReLU(inplace=True), nn.Dropout(dropout(config)))
        layers += [nn.Linear(features, config.hidden), after]
        features = config.hidden
    return nn.Sequential(*layers, nn.Linear(features, labels))


def head_penalty(config: ClassifierHeadConfig, head: nn.Module) -> torch.Tensor | None:
    """L2 penalty of the hidden layers of a dense head, a scalar; None for the other kinds."""
    if config.kind != "dense" or config.l2 == 0:
        return None
    hidden = [layer.weight for layer in head.modules() if isinstance(layer, nn.Linear)][:-1]
    return config.l2 * torch.stack([weight.square().sum() for weight in hidden]).sum()


def class_weights(y: torch.Tensor, mask: torch.Tensor, kind: str, factor: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights of positives and of negatives per label, from the known labels of the training set.

    Args:
        y: labels (N, L), 0 or 1.
        mask: True where a label is known (N, L).
        kind: none, pos_weight (n_neg/n_pos for positives, 1 for negatives) or balanced (n/(2 n_pos), n/(2 n_neg), as
            scikit-learn's class_weight="balanced").
        factor: in [0, 1], straight line from weight 1 to the weights of `kind`.

    Returns:
        (positive (L,), negative (L,)) float32. A label without both classes gets weights 1.
    """
    known = mask.float()
    positives = (y * known).sum(0)
    total = known.sum(0)
    negatives = total - positives
    both = (positives > 0) & (negatives > 0)
    ones = torch.ones_like(total)
    if kind == "none":
        return ones, ones.clone()
    if kind == "pos_weight":
        positive, negative = negatives / positives.clamp(min=1), ones
    else:
        positive, negative = total / (2 * positives.clamp(min=1)), total / (2 * negatives.clamp(min=1))
    positive, negative = torch.where(both, positive, ones), torch.where(both, negative, ones)
    return 1 + factor * (positive - 1), 1 + factor * (negative - 1)


def masked_bce(
    logits: torch.Tensor,
    y: torch.Tensor,
    mask: torch.Tensor,
    weights: tuple[torch.Tensor, torch.Tensor],
) -> torch.Tensor:
    """Mean binary cross-entropy over the known labels, a scalar in float32; 0 where nothing is known.

    Args:
        logits: (B, L).
        y: (B, L), 0 or 1; any value where unknown.
        mask: (B, L), True where known.
        weights: of positives and negatives, (L,) each.
    """
    positive, negative = weights
    known = mask.float()
    target = torch.where(mask, y, torch.zeros_like(y))
    weight = known * (target * positive + (1 - target) * negative)
    loss = binary_cross_entropy_with_logits(logits.float(), target, weight=weight, reduction="sum")
    return loss / known.sum().clamp(min=1)
