"""What each test patient contributes to a metric, and from it the metric's variance, without resampling.

A metric is a smooth function of averages over patients, so that its error is, to first order, a sum over patients of
their *influence* on it (the infinitesimal jackknife: Efron 1982, chapter 6; for an AUROC it is DeLong's method by
patient, Obuchowski 1997). The sum of squared influences is the variance; for two runs on the same patients the sum of
products is their covariance, which is what makes intervals over seeds and paired tests possible.

Where few patients carry a metric that sum is itself uncertain, or zero (all three positives found). `extra` is variance
added so that it is not taken for certainty; it vanishes as patients get more.

Letters: N images, P patients, M positives, I patients with an image that counts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from results.stats.delong import placements

MIN_CLASS_PATIENTS = 3
"""Patients with, and patients without, the finding below which there is no interval and no test."""

MIN_PATIENTS = 10
"""Test patients below which there is no interval and no test."""

PRIOR_PATIENTS = 4
"""Patients that Hanley and McNeil's variance of an AUROC counts for beside the observed one. As in Smyth's (2004)
moderated variances it matters for a handful of positives only; chosen by simulation (benches/reports/statistics.md)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Influence:
    """One metric of one run, with what its error is made of."""

    value: float
    """The metric."""
    patients: np.ndarray
    """Influence of each patient, (P,); the sum of squares is the variance over patients."""
    extra: float = 0.0
    """Variance beyond that sum, for what few patients cannot show."""
    freedom: float = np.inf
    """Degrees of freedom of the variance over patients."""
    boundary: float | None = None
    """Patients that a value of exactly 0 or 1 rests on; None for a metric without such ends."""

    @property
    def variance(self) -> float:
        """Of the value, over test patients."""
        return float(np.einsum("p,p->", self.patients, self.patients, dtype=np.float64)) + self.extra


def too_few(truth: np.ndarray, patients: np.ndarray) -> bool:
    """Whether there are too few patients for an interval.

    Args:
        truth: bool (N,).
        patients: codes (N,).
    """
    positive, negative = _count(patients[truth]), _count(patients[~truth])
    return min(positive, negative) < MIN_CLASS_PATIENTS or _count(patients) < MIN_PATIENTS


def influence(
    metric: str,
    truth: np.ndarray,
    score: np.ndarray,
    patients: np.ndarray,
    threshold: float | None = None,
    n_patients: int | None = None,
) -> Influence | None:
    """The influence of every patient on one label's metric.

    Args:
        metric: one of `INTERVAL_METRICS`.
        truth: bool (N,).
        score: (N,) probabilities.
        patients: codes (N,) below P.
        threshold: score from which an image is called positive.
        n_patients: P; None takes the highest code.

    Returns:
        None where the metric is undefined, or has no variance estimate (ECE, see docs/results.md).
    """
    total = int(n_patients or patients.max(initial=-1) + 1)
    if not truth.any() or truth.all():
        return None
    if metric == "auroc":
        return _auroc(truth, score, patients, total)
    if metric == "auprc":
        return _average_precision(truth, score, patients, total)
    if metric == "brier":
        return mean_of((score - truth) ** 2, patients, total)
    if threshold is None or metric not in _AT_THRESHOLD:
        return None
    return _AT_THRESHOLD[metric](truth, score >= threshold, patients, total)


def mean(parts: Sequence[Influence]) -> Influence:
    """The mean of several labels' metric; a patient's influence on it is the mean of his influences."""
    if len(parts) == 1:
        return parts[0]
    number = len(parts)
    out = Influence(
        value=float(np.mean([part.value for part in parts])),
        patients=np.stack([part.patients for part in parts]).mean(axis=0, dtype=np.float64),
        extra=sum(part.extra for part in parts) / number**2,
    )
    ends = [part.boundary for part in parts]
    return dataclasses.replace(
        out,
        freedom=satterthwaite(out.variance, [(part.variance / number**2, part.freedom) for part in parts]),
        boundary=None if None in ends else min(end for end in ends if end is not None),
    )


def satterthwaite(variance: float, parts: Sequence[tuple[float, float]]) -> float:
    """Degrees of freedom of a variance that is a sum of estimates (variance, freedom) (Satterthwaite 1946)."""
    spread = sum(part**2 / freedom for part, freedom in parts)
    return variance**2 / spread if spread > 0 else np.inf


def _count(patients: np.ndarray) -> int:
    """How many patients there are."""
    return int(np.count_nonzero(np.bincount(patients)))


def _sum(values: np.ndarray, patients: np.ndarray, total: int) -> np.ndarray:
    return np.bincount(patients, weights=values, minlength=total)


def _auroc(truth: np.ndarray, score: np.ndarray, patients: np.ndarray, total: int) -> Influence:
    """DeLong by patient (Obuchowski 1997); a class of few patients leans on Hanley and McNeil's (1982) variance."""
    area, placement = placements(truth, score)
    parts, sums, extra = [], np.zeros(total), 0.0
    likely = max(area, 1 - area)
    models = {True: 2 * likely**2 / (1 + likely) - likely**2, False: likely / (2 - likely) - likely**2}
    held = {}
    for own in (True, False):
        mask = truth == own
        held[own] = n = _count(patients[mask])
        one = _sum(placement[mask] - area, patients[mask], total) / mask.sum() * np.sqrt(n / max(n - 1, 1))
        observed = float(one @ one)
        weight = PRIOR_PATIENTS / (n - 1 + PRIOR_PATIENTS)
        more = max(0.0, weight * (models[own] / n - observed))
        sums, extra = sums + one, extra + more
        parts.append((observed + more, n - 1 + PRIOR_PATIENTS))
    return Influence(
        value=area,
        patients=sums,
        extra=extra,
        freedom=satterthwaite(sum(part for part, _ in parts), parts),
        boundary=2 / (1 / held[True] + 1 / held[False]),
    )


def _average_precision(truth: np.ndarray, score: np.ndarray, patients: np.ndarray, total: int) -> Influence:
    """The derivative of average precision by the weight of an image, summed by patient."""
    _, group = np.unique(-score, return_inverse=True)
    hits = np.bincount(group, weights=truth)
    images = np.bincount(group)
    tp, called = np.cumsum(hits), np.cumsum(images)
    n_pos = tp[-1]
    precision = tp / called
    value = float(hits @ precision / n_pos)
    # An image counts among the called at its own score and at every lower one.
    below = np.cumsum((hits / called)[::-1])[::-1]
    weighed = np.cumsum((hits * tp / called**2)[::-1])[::-1]
    each = (truth * (precision[group] - value) + truth * below[group] - weighed[group]) / n_pos
    n, positive = _count(patients), _count(patients[truth])
    sums = _sum(each, patients, total) * np.sqrt(n / max(n - 1, 1))
    weight = PRIOR_PATIENTS / (positive - 1 + PRIOR_PATIENTS)
    extra = max(0.0, weight * (value * (1 - value) / positive - float(sums @ sums)))  # Boyd et al. 2013's binomial
    return Influence(
        value=value, patients=sums, extra=extra, freedom=positive - 1 + PRIOR_PATIENTS, boundary=float(positive)
    )


def mean_of(values: np.ndarray, patients: np.ndarray, total: int) -> Influence:
    """A mean over images of values (N,), with the influence of `total` patients."""
    value, n = float(values.mean()), _count(patients)
    sums = _sum(values - value, patients, total) / len(values) * np.sqrt(n / max(n - 1, 1))
    return Influence(value=value, patients=sums, freedom=max(n - 1, 1))


def _proportion(numerator: np.ndarray, denominator: np.ndarray, patients: np.ndarray, total: int) -> Influence | None:
    """A ratio of sums over images, the numerator at most the denominator; its variance at least the binomial one.

    With one image per patient it is the binomial variance p (1 - p) / n, and the interval made of it Wilson's; several
    images of a patient raise it by their design effect (Rao and Scott 1992), which is never taken to be below 1.
    """
    size = float(denominator.sum())
    if not size:
        return None
    value = float(numerator.sum() / size)
    counted = denominator > 0
    sums = _sum((numerator - value * denominator)[counted], patients[counted], total) / size
    n = _count(patients[counted])
    # At 0 and 1 the binomial variance is zero too; half a patient more on either side is not.
    inside = 0 < value < 1
    p = value if inside else (value * n + 0.5) / (n + 1)
    binomial = p * (1 - p) / (counted.sum() if inside else n)
    return Influence(
        value=value,
        patients=sums,
        extra=max(0.0, float(binomial - sums @ sums)),
        freedom=np.inf if n == counted.sum() else max(n - 1, 1),
        boundary=float(n),
    )


def _accuracy(truth: np.ndarray, called: np.ndarray, patients: np.ndarray, total: int) -> Influence | None:
    return _proportion((truth == called).astype(float), np.ones(len(truth)), patients, total)


def _recall(truth: np.ndarray, called: np.ndarray, patients: np.ndarray, total: int) -> Influence | None:
    return _proportion((truth & called).astype(float), truth.astype(float), patients, total)


def _specificity(truth: np.ndarray, called: np.ndarray, patients: np.ndarray, total: int) -> Influence | None:
    return _recall(~truth, ~called, patients, total)


def _precision(truth: np.ndarray, called: np.ndarray, patients: np.ndarray, total: int) -> Influence | None:
    return _recall(called, truth, patients, total)


def _f1(truth: np.ndarray, called: np.ndarray, patients: np.ndarray, total: int) -> Influence | None:
    """F1 is 2 J / (1 + J), where J = tp / (tp + fp + fn) is a proportion (Lam et al. 2023)."""
    union = _proportion((truth & called).astype(float), (truth | called).astype(float), patients, total)
    if union is None:
        return None
    slope = 2 / (1 + union.value) ** 2
    return dataclasses.replace(
        union,
        value=2 * union.value / (1 + union.value),
        patients=slope * union.patients,
        extra=slope**2 * union.extra,
    )


def _balanced_accuracy(truth: np.ndarray, called: np.ndarray, patients: np.ndarray, total: int) -> Influence | None:
    both = [one(truth, called, patients, total) for one in (_recall, _specificity)]
    halves = [one for one in both if one is not None]
    # A value of 1 means that both are 1; the class of fewer patients then says how sure that is.
    return dataclasses.replace(mean(halves), boundary=2 * min(one.boundary or 0.0 for one in halves))


_AT_THRESHOLD = {
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
    "precision": _precision,
    "recall": _recall,
    "specificity": _specificity,
    "f1": _f1,
}

INTERVAL_METRICS = ("auroc", "auprc", "brier", *_AT_THRESHOLD)
"""Metrics that have an interval and a test."""
