"""Variance of an AUROC and the difference of two on the same images, in closed form.

DeLong, DeLong, Clarke-Pearson 1988, computed by midranks (Sun and Xu 2014, O(N log N)); with several images
of one patient, the clustered form of Obuchowski 1997, which is the same thing when each patient has one image.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from results.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """What a paired test found."""

    value: float
    """First minus second."""
    low: float
    """Lower end of the 95 % interval of `value`."""
    high: float
    """Upper end."""
    p: float
    """Two-sided, not corrected for other tests."""
    method: str
    """Name of the test, as a caption gives it."""


def delong(truth: np.ndarray, score: np.ndarray, patients: np.ndarray | None = None) -> tuple[float, float]:
    """AUROC and its variance.

    Args:
        truth: bool (N,), both classes present.
        score: (N,).
        patients: codes (N,); None takes images as independent.

    Raises:
        InputError: a class is missing or has one member (patient) only.
    """
    area, covariance = _areas(truth, np.asarray(score, dtype=np.float64)[None], patients)
    return float(area[0]), float(covariance[0, 0])


def delong_paired(
    truth: np.ndarray, score_a: np.ndarray, score_b: np.ndarray, patients: np.ndarray | None = None
) -> Difference:
    """Difference of two models' AUROC on the same images, with its 95 % interval and two-sided p value.

    Scores that rank all images alike have difference 0 and p 1.

    Args:
        truth: bool (N,), both classes present.
        score_a: (N,).
        score_b: (N,).
        patients: codes (N,); None takes images as independent.

    Raises:
        InputError: a class is missing or has one member (patient) only.
    """
    area, covariance = _areas(truth, np.stack([score_a, score_b]).astype(np.float64), patients)
    difference = float(area[0] - area[1])
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    error = math.sqrt(max(variance, 0.0))
    if error <= 1e-12:
        p = 1.0 if abs(difference) <= 1e-12 else 0.0
    else:
        p = math.erfc(abs(difference) / error / math.sqrt(2))
    method = "DeLong" if patients is None or len(np.unique(patients)) == len(patients) else "DeLong, by patient"
    reach = 1.959963984540054 * error
    return Difference(value=difference, low=difference - reach, high=difference + reach, p=p, method=method)


def placements(truth: np.ndarray, score: np.ndarray) -> tuple[float, np.ndarray]:
    """AUROC, and for each image the share of the other class that it is ranked rightly against, ties half, (N,).

    Args:
        truth: bool (N,), both classes present.
        score: (N,).
    """
    positive, negative = score[truth], score[~truth]
    out = np.empty(len(score))
    out[truth] = _ranked_below(positive, np.sort(negative))
    out[~truth] = 1 - _ranked_below(negative, np.sort(positive))
    return float(out[truth].mean()), out


def _ranked_below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The share of the sorted `others` below each value, equal ones half."""
    left, right = (np.searchsorted(others, values, side=side) for side in ("left", "right"))
    return (left + right) / (2 * len(others))


def _areas(truth: np.ndarray, scores: np.ndarray, patients: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """AUROC of each of R score rows, (R,), and their covariance (R, R)."""
    truth = np.asarray(truth, dtype=bool)
    m, n = int(truth.sum()), int((~truth).sum())
    if m < 2 or n < 2:
        raise InputError(f"an AUROC's variance needs two positives and two negatives, there are {m} and {n}")
    clusters = np.arange(len(truth)) if patients is None else np.unique(patients, return_inverse=True)[1]
    found = [placements(truth, score) for score in scores]
    area, placement = np.array([one[0] for one in found]), np.stack([one[1] for one in found])
    centred = placement - area[:, None]
    n_clusters = int(clusters.max()) + 1
    positive, negative = (
        np.stack([np.bincount(clusters, weights=row * mask, minlength=n_clusters) for row in centred])
        for mask in (truth, ~truth)
    )
    with_positive, with_negative = len(np.unique(clusters[truth])), len(np.unique(clusters[~truth]))
    if with_positive < 2 or with_negative < 2:
        raise InputError("an AUROC's variance needs positives and negatives of two patients each")
    s10 = with_positive / (with_positive - 1) * positive @ positive.T / m
    s01 = with_negative / (with_negative - 1) * negative @ negative.T / n
    s11 = n_clusters / (n_clusters - 1) * (positive @ negative.T)
    return area, s10 / m + s01 / n + (s11 + s11.T) / (m * n)
