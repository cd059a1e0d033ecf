"""Calibration slope and intercept with the influence of every test patient, and recalibration by a temperature.

The slope is b in the logistic regression logit P(y = 1) = a + b logit(p) of the truths on the scores; below 1 the
scores are too extreme. The intercept is a of the same regression with b held at 1 (calibration in the large): above 0
the findings are more common than the scores say (Cox 1958; Van Calster et al. 2019). Both solve an estimating
equation, so that an image's influence is the inverse of its derivative times the image's own term (the sandwich
variance), summed by patient. The log loss is a mean over images.

Letters: N images, P patients.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from results.stats import influence
from results.stats.influence import Influence

CLIP = 1e-6
"""Scores are kept this far from 0 and 1: those of float32 reach both, where the logit has no value."""

TEMPERATURES = (0.05, 20.0)
"""Range of a temperature."""


def logits(score: np.ndarray) -> np.ndarray:
    """Logit of scores, kept `CLIP` away from 0 and 1, (N,)."""
    held = np.clip(np.asarray(score, dtype=np.float64), CLIP, 1 - CLIP)
    return np.log(held) - np.log1p(-held)


def log_loss(
    truth: np.ndarray, score: np.ndarray, patients: np.ndarray, n_patients: int | None = None
) -> Influence | None:
    """The mean of -ln of the probability given to the truth (cross-entropy, in nats); arguments as `slope`.

    None where a class is missing. A score nearer to 0 or 1 than `CLIP` counts as that: no image adds more than 13.8.
    """
    if not truth.any() or truth.all():
        return None
    x = logits(score)
    return influence.mean_of(np.logaddexp(0.0, x) - truth * x, patients, int(n_patients or patients.max() + 1))


def slope(
    truth: np.ndarray, score: np.ndarray, patients: np.ndarray, n_patients: int | None = None
) -> Influence | None:
    """The calibration slope; None where a class is missing, all scores are equal, or the classes do not overlap.

    Args:
        truth: bool (N,).
        score: (N,) probabilities.
        patients: codes (N,) below P.
        n_patients: P; None takes the highest code.
    """
    x = logits(score)
    if not truth.any() or truth.all() or np.ptp(x) == 0 or _separated(truth, x):
        return None
    return _fitted(truth, np.stack([np.ones(len(x)), x], axis=1), np.zeros(len(x)), patients, n_patients, take=1)


def intercept(
    truth: np.ndarray, score: np.ndarray, patients: np.ndarray, n_patients: int | None = None
) -> Influence | None:
    """The calibration intercept, with the slope held at 1; arguments as `slope`. None where a class is missing."""
    if not truth.any() or truth.all():
        return None
    return _fitted(truth, np.ones((len(score), 1)), logits(score), patients, n_patients, take=0)


def _separated(truth: np.ndarray, x: np.ndarray) -> bool:
    """Whether a threshold separates the classes perfectly, so that no slope is steep enough."""
    return bool(x[truth].min() >= x[~truth].max() or x[truth].max() <= x[~truth].min())


def _fitted(
    truth: np.ndarray, design: np.ndarray, offset: np.ndarray, patients: np.ndarray, total: int | None, take: int
) -> Influence | None:
    """One coefficient of a logistic regression, by Newton's method with halved steps."""
    beta = np.zeros(design.shape[1])
    if design.shape[1] == 2:
        beta[1] = 1.0
    y = truth.astype(np.float64)

    def loss(b: np.ndarray) -> float:
        eta = offset + design @ b
        return float((np.logaddexp(0.0, eta) - y * eta).sum())

    held = loss(beta)
    for _ in range(100):
        p = _sigmoid(offset + design @ beta)
        gradient = design.T @ (y - p)
        hessian = (design * (p * (1 - p))[:, None]).T @ design
        try:
            step = np.linalg.solve(hessian, gradient)
        except np.linalg.LinAlgError:
            return None
        size = 1.0
        while size > 1e-8 and loss(beta + size * step) > held + 1e-12:
            size /= 2
        beta, held = beta + size * step, loss(beta + size * step)
        if np.abs(size * step).max() < 1e-9:
            break
    p = _sigmoid(offset + design @ beta)
    hessian = (design * (p * (1 - p))[:, None]).T @ design
    try:
        each = (design * (y - p)[:, None]) @ np.linalg.inv(hessian)[:, take]
    except np.linalg.LinAlgError:
        return None
    count = int(total or patients.max(initial=-1) + 1)
    n = int(np.count_nonzero(np.bincount(patients)))
    sums = np.bincount(patients, weights=each, minlength=count) * np.sqrt(n / max(n - 1, 1))
    positive = int(np.count_nonzero(np.bincount(patients[truth])))
    # As many degrees of freedom as patients of the rarer class: few positives tell the variance badly.
    fewer = min(positive, int(np.count_nonzero(np.bincount(patients[~truth]))))
    return Influence(value=float(beta[take]), patients=sums, freedom=max(fewer - 1, 1))


def temperature(truth: np.ndarray, score: np.ndarray) -> float:
    """The T for which sigmoid(logit(score) / T) has the lowest log loss (Guo et al. 2017), on validation.

    Args:
        truth: bool (N,), both classes present.
        score: (N,) probabilities.
    """
    from scipy.optimize import minimize_scalar

    x, y = logits(score), truth.astype(np.float64)

    def loss(log_t: float) -> float:
        eta = x / np.exp(log_t)
        return float((np.logaddexp(0.0, eta) - y * eta).mean())

    low, high = np.log(TEMPERATURES)
    found: Any = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def recalibrated(score: np.ndarray, t: float) -> np.ndarray:
    """Scores at a temperature, (N,); T = 1 leaves them as they are but for `CLIP`."""
    return _sigmoid(logits(score) / t)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))
