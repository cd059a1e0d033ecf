"""Linear probes: logistic regression on frozen features, by scikit-learn's L-BFGS, which is deterministic.

Shapes: n samples, D features, L labels, K penalties tried.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from results.stats.metrics import auroc


@dataclass(frozen=True)
class Probe:
    """One linear layer, in units of the features as they came."""

    weight: np.ndarray
    """float32 (L, D)."""
    bias: np.ndarray
    """float32 (L,)."""
    l2: np.ndarray
    """float64 (L,): the penalty chosen on val; NaN where the label could not be fitted."""


def fit(
    x: np.ndarray,
    y: np.ndarray,
    mask: np.ndarray,
    weights: tuple[np.ndarray, np.ndarray],
    penalties: Sequence[float],
    val: tuple[np.ndarray, np.ndarray, np.ndarray] | None,
) -> Probe:
    """Fit one logistic regression a label and keep the penalty with the best AUROC on val.

    Minimises mean_i w_i log(1 + exp(-s_i (v.x_i + b))) + penalty/2 |v|^2 over features scaled to unit variance, where
    s is +-1 and w the class weights, and returns the layer in the features' own units.

    Args:
        x: float32 (n, D).
        y: (n, L) of 0 and 1.
        mask: bool (n, L), True where known.
        weights: of positives and of negatives, (L,) each.
        penalties: the K penalties, above 0.
        val: x, y, mask of the validation samples; None, or a label without both classes there: the middle penalty.

    Returns:
        Probe; a label without both classes keeps weights 0.
    """
    mean, scale = moments(x)
    scaled = ((x - mean) / scale).astype(np.float32)
    seen = None if val is None else (((val[0] - mean) / scale).astype(np.float32), val[1], val[2])
    weight, bias, chosen = fit_scaled(scaled, y, mask, weights, penalties, seen)
    weight /= scale
    return Probe(weight.astype(np.float32), (bias - weight @ mean).astype(np.float32), chosen)


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of features (n, D), float64 (D,) each; infinite where one never changes: it takes no part."""
    mean = x.mean(0, dtype=np.float64)
    scale = x.std(0, dtype=np.float64)
    scale[scale < 1e-6 * max(1.0, float(np.abs(mean).max()))] = np.inf
    return mean, scale


def fit_scaled(
    x: np.ndarray,
    y: np.ndarray,
    mask: np.ndarray,
    weights: tuple[np.ndarray, np.ndarray],
    penalties: Sequence[float],
    val: tuple[np.ndarray, np.ndarray, np.ndarray] | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `fit`, on features as they come: weight (L, D), bias (L,) and the penalty chosen (L,), float64."""
    labels = y.shape[1]
    weight, bias = np.zeros((labels, x.shape[1])), np.zeros(labels)
    chosen = np.full(labels, np.nan)
    for j in range(labels):
        known = mask[:, j]
        target = y[known, j].astype(np.int8)
        if len(target) == 0 or target.min() == target.max():
            continue
        sample_weight = np.where(target == 1, weights[0][j], weights[1][j]).astype(np.float64)
        path = _path(x if known.all() else x[known], target, sample_weight, sorted(penalties, reverse=True))
        chosen[j], weight[j], bias[j] = _best(path, None if val is None else (val[0], val[1][:, j], val[2][:, j]))
    return weight, bias, chosen


def _path(
    x: np.ndarray, target: np.ndarray, sample_weight: np.ndarray, penalties: list[float]
) -> list[tuple[float, np.ndarray, float]]:
    """Solutions from the strongest penalty to the weakest, each started from the one before."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(solver="lbfgs", tol=1e-4, max_iter=500, warm_start=True)
    found = []
    for penalty in penalties:
        model.C = 1 / (penalty * len(target))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # 500 iterations are near enough for a ranking
            model.fit(x, target, sample_weight=sample_weight)
        found.append((penalty, np.asarray(model.coef_, np.float64)[0], float(np.asarray(model.intercept_)[0])))
    return found


def _best(
    path: list[tuple[float, np.ndarray, float]], val: tuple[np.ndarray, np.ndarray, np.ndarray] | None
) -> tuple[float, np.ndarray, float]:
    """The solution with the best val AUROC; of equals the strongest penalty."""
    if val is not None:
        x, y, mask = val
        truth = y[mask] > 0
        if truth.any() and not truth.all():
            scores = [auroc(truth, x[mask] @ weight.astype(np.float32) + bias) for _, weight, bias in path]
            return path[int(np.argmax(scores))]
    return path[len(path) // 2]
