"""What a binary label's scores are worth: every metric from y_true and y_score alone, with NumPy.

Notation: tp, fp, tn, fn count images with score >= threshold as positive. A metric that is not defined is None,
never 0 or 0.5: everything but the counts when a class is missing, precision when nothing is called positive.
"""

from __future__ import annotations

import numpy as np

from results.errors import InputError
from results.metric_names import COUNTS, METRICS

ECE_BINS = 15
"""Equal-width bins of the expected calibration error."""


def check(y_true: np.ndarray, y_score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """y_true as bool (N,) and y_score as float64 (N,).

    Raises:
        InputError: other shapes, truths other than 0 and 1, scores that are NaN or outside [0, 1].
    """
    truth, score = np.asarray(y_true), np.asarray(y_score, dtype=np.float64)
    if truth.ndim != 1 or truth.shape != score.shape:
        raise InputError(f"y_true {truth.shape} and y_score {score.shape} must be two vectors of one length")
    if not np.isin(truth, (0, 1)).all():
        raise InputError("y_true may hold 0 and 1 only")
    if not ((score >= 0) & (score <= 1)).all():
        raise InputError(f"{int((~((score >= 0) & (score <= 1))).sum())} scores are NaN or outside [0, 1]")
    return truth.astype(bool), score


def compute(y_true: np.ndarray, y_score: np.ndarray, threshold: float | None) -> dict[str, float | None]:
    """All metrics and counts of one label.

    Args:
        y_true: (N,) of 0 and 1.
        y_score: (N,) probabilities in [0, 1].
        threshold: score from which an image counts as positive; None leaves its metrics and counts undefined.

    Returns:
        auroc, auprc (average precision, sum of precision times the step in recall over distinct scores), accuracy,
        balanced_accuracy, precision, recall, specificity, f1, brier (mean squared error), ece (Naeini et al. 2015: bins
        of equal width, weighted mean of |positive rate - mean score|), tp, fp, tn, fn; None where undefined.

    Raises:
        InputError: see `check`.
    """
    truth, score = check(y_true, y_score)
    out: dict[str, float | None] = dict.fromkeys(METRICS + COUNTS)
    if threshold is not None:
        called = score >= threshold
        tp, fp = int((called & truth).sum()), int((called & ~truth).sum())
        fn, tn = int(truth.sum()) - tp, int((~truth).sum()) - fp
        out |= {"tp": tp, "fp": fp, "tn": tn, "fn": fn}
    if not truth.any() or truth.all():
        return out
    out |= {"auroc": auroc(truth, score), "auprc": average_precision(truth, score)}
    out |= {"brier": float(np.mean((score - truth) ** 2)), "ece": expected_calibration_error(truth, score)}
    if threshold is not None:
        out |= from_counts(tp, fp, tn, fn)
    return out


def from_counts(tp: float, fp: float, tn: float, fn: float) -> dict[str, float | None]:
    """The threshold metrics of counts in which both classes occur."""
    recall, specificity = tp / (tp + fn), tn / (tn + fp)
    return {
        "accuracy": (tp + tn) / (tp + fp + tn + fn),
        "balanced_accuracy": (recall + specificity) / 2,
        "precision": tp / (tp + fp) if tp + fp else None,
        "recall": recall,
        "specificity": specificity,
        "f1": 2 * tp / (2 * tp + fp + fn),
    }


def auroc(truth: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counting half."""
    _, group, sizes = np.unique(score, return_inverse=True, return_counts=True)
    midrank = np.cumsum(sizes) - (sizes - 1) / 2
    positives = int(truth.sum())
    ranks = midrank[group][truth].sum()
    return float((ranks - positives * (positives + 1) / 2) / (positives * (len(truth) - positives)))


def curve_counts(truth: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct scores, highest first, and the true and false positives when each is the threshold, all (K,)."""
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    hits = np.cumsum(truth[order])[last]
    return ranked[last], hits, last + 1 - hits


def average_precision(truth: np.ndarray, score: np.ndarray) -> float:
    """Average precision, without interpolation."""
    _, tp, fp = curve_counts(truth, score)
    return float(np.sum(np.diff(tp, prepend=0) / tp[-1] * tp / (tp + fp)))


def calibration_bin(score: np.ndarray, bins: int = ECE_BINS) -> np.ndarray:
    """The equal-width bin 0..bins-1 of each score, int64 (N,); 1.0 belongs to the last one."""
    return np.minimum((np.asarray(score, dtype=np.float64) * bins).astype(np.int64), bins - 1)


def expected_calibration_error(truth: np.ndarray, score: np.ndarray, bins: int = ECE_BINS) -> float:
    """Mean of |positive rate - mean score| over bins, weighted by their images."""
    gap = np.bincount(calibration_bin(score, bins), weights=truth - score, minlength=bins)
    return float(np.abs(gap).sum() / len(score))


def pick_threshold(y_true: np.ndarray, y_score: np.ndarray, rule: str = "balanced_accuracy") -> float:
    """The score of the given (validation) images that serves best as a threshold.

    Args:
        y_true: (N,) of 0 and 1, both present.
        y_score: (N,) probabilities.
        rule: `balanced_accuracy`, `accuracy` or `f1` for the highest of these (of equals, the lowest threshold, which
            misses fewest), `sensitivity=0.9` for the highest threshold that still finds that share of the positives,
            `specificity=0.9` for the lowest one that still leaves that share of the negatives below it (where even the
            highest score would call too many, the threshold lies just above it), or a number from 0 to 1, which is the
            threshold itself.

    Raises:
        InputError: one class only, an unknown rule, or see `check`.
    """
    truth, score = check(y_true, y_score)
    if not truth.any() or truth.all():
        raise InputError("a threshold needs positives and negatives to choose it on")
    thresholds, tp, fp = curve_counts(truth, score)
    positives, negatives = tp[-1], fp[-1]
    if rule == "balanced_accuracy":
        merit = tp / positives - fp / negatives
    elif rule == "f1":
        merit = 2 * tp / (tp + fp + positives)
    elif rule == "accuracy":
        merit = (tp - fp) / len(truth)  # and the negatives' share, the same for all
    elif (given := fixed_threshold(rule)) is not None:
        return given
    else:
        name, wanted = _wanted_share(rule)
        if name == "sensitivity":
            return float(thresholds[np.argmax(tp >= wanted * positives - 1e-9)])
        allowed = np.flatnonzero(negatives - fp >= wanted * negatives - 1e-9)
        return float(thresholds[allowed[-1]]) if len(allowed) else float(np.nextafter(thresholds[0], np.inf))
    best = np.flatnonzero(merit >= merit.max() - 1e-12)
    return float(thresholds[best[-1]])


def fixed_threshold(rule: str) -> float | None:
    """The threshold that a rule such as 0.5 names itself; None for a rule that chooses one."""
    try:
        value = float(rule)
    except ValueError:
        return None
    return value if 0 <= value <= 1 else None


def check_rule(rule: str) -> None:
    """Refuse a rule that `pick_threshold` does not know.

    Raises:
        InputError: naming those it knows.
    """
    if rule not in ("balanced_accuracy", "accuracy", "f1") and fixed_threshold(rule) is None:
        _wanted_share(rule)


def _wanted_share(rule: str) -> tuple[str, float]:
    name, _, value = rule.partition("=")
    try:
        wanted = float(value)
    except ValueError:
        wanted = -1.0
    if name not in ("sensitivity", "specificity") or not 0 < wanted <= 1:
        known = "balanced_accuracy, accuracy, f1, sensitivity=0.9, specificity=0.9 (0 to 1), or a threshold such as 0.5"
        raise InputError(f"unknown threshold rule {rule!r}; known: {known}")
    return name, wanted
