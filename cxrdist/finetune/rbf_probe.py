"""Probes with a radial basis function kernel: logistic regression in the space that the kernel of landmarks spans.

With as many landmarks as samples this is kernel logistic regression; with fewer it is Nystroem's approximation
(Williams and Seeger 2001).

Shapes: n samples, D features, m landmarks, L labels.
"""

from __future__ import annotations

import numpy as np
import torch

from cxrdist.finetune.config import ClassifierHeadConfig
from cxrdist.finetune.heads import RBFHead
from cxrdist.finetune.linear_probe import fit_scaled, moments

SMALLEST = 1e-6
"""Directions of the landmarks' kernel matrix whose eigenvalue is below this share of the largest are left out: two
landmarks that are alike span none, and float32 could not tell the direction from rounding."""


def fit(
    x: np.ndarray,
    y: np.ndarray,
    mask: np.ndarray,
    weights: tuple[np.ndarray, np.ndarray],
    config: ClassifierHeadConfig,
    val: tuple[np.ndarray, np.ndarray, np.ndarray] | None,
    seed: int,
) -> tuple[RBFHead, np.ndarray]:
    """Fit one kernel logistic regression a label and keep the penalty with the best AUROC on val.

    Args:
        x: float32 (n, D).
        y: (n, L) of 0 and 1.
        mask: bool (n, L), True where known.
        weights: of positives and of negatives, (L,) each.
        config: penalties, gamma and number of landmarks.
        val: x, y, mask of the validation samples; None, or a label without both classes there: the middle penalty.
        seed: of the landmarks, where not all samples are.

    Returns:
        The head, and the penalty chosen, float64 (L,): NaN where a label could not be fitted (its weights are 0).
    """
    count = min(len(x), config.rbf_landmarks)
    chosen = np.arange(len(x))
    if count < len(x):
        chosen = np.sort(np.random.default_rng([seed, 0x7262]).choice(len(x), count, replace=False))
    mean, scale = moments(x)
    head = RBFHead(x.shape[1], y.shape[1], count)
    with torch.no_grad():
        _set(head, mean=mean, inverse=1 / scale, gamma=config.rbf_gamma / max(1, int(np.isfinite(scale).sum())))
        _set(head, landmarks=(x[chosen] - mean) / scale)
        values, vectors = np.linalg.eigh(_kernel(head, x[chosen]))
        held = values > SMALLEST * values[-1]
        basis = vectors[:, held] / np.sqrt(values[held])
        seen = None if val is None else (_kernel(head, val[0]) @ basis, val[1], val[2])
        weight, bias, penalty = fit_scaled(_kernel(head, x) @ basis, y, mask, weights, config.rbf_l2, seen)
        _set(head, weight=weight @ basis.T, bias=bias)
    return head, penalty


def _kernel(head: RBFHead, x: np.ndarray) -> np.ndarray:
    """Kernel values with the landmarks, float64 (n, m)."""
    parts = [head.kernel(torch.from_numpy(x[start : start + 1024])) for start in range(0, len(x), 1024)]
    return torch.cat(parts).double().numpy()


def _set(head: RBFHead, **values: np.ndarray | float) -> None:
    for name, value in values.items():
        getattr(head, name).copy_(torch.from_numpy(np.asarray(value, np.float32)))
