"""`roc`: ROC curves, from predictions."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from results.cells.options import Options
from results.figures.score_curves import CHANCE, CurveKind, cumulative, curve_panels
from results.figures.scores import GRID, Scores
from results.figures.style import Drawing

PER_TEST_SET = True
"""A report draws it once for each test set."""


def draw(results: pa.Table, options: Options) -> Drawing:
    """True over false positive rate, one panel per label."""
    kind = CurveKind(
        title="ROC curves",
        metric="auroc",
        curve=roc_curve,
        carriers=_positives,
        axes=("False positive rate", "True positive rate"),
        chance=lambda axis, share: axis.plot([0, 1], [0, 1], **CHANCE),
    )
    return curve_panels(results, options, kind)


def roc_curve(truth: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """True positive rate at the false positive rates of GRID, (b, 101); weights (b, N); NaN if a class is gone."""
    hits, misses = cumulative(truth, score, weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        tpr, fpr = hits / hits[:, -1:], misses / misses[:, -1:]
    start = np.zeros(1)
    return np.stack(
        [
            np.interp(GRID, np.append(start, x), np.append(start, y))
            if np.isfinite(x[-1] + y[-1])
            else np.full(101, np.nan)
            for x, y in zip(fpr, tpr, strict=True)
        ]
    )


def _positives(run: Scores) -> tuple[np.ndarray, np.ndarray]:
    """A true positive rate is a share of the positives; at a false positive rate of 1 it is 1, whoever is tested."""
    counts = (int(run.truth.sum()), len(np.unique(run.patients[run.truth])))
    images, patients = (np.append(np.full(len(GRID) - 1, float(count)), _EVERYBODY) for count in counts)
    return images, patients


_EVERYBODY = 1e15
"""Patients behind a value that no sample can change."""
