"""`precision-recall`: precision-recall curves, from predictions."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from results.cells.options import Options
from results.figures.score_curves import CHANCE, CurveKind, cumulative, curve_panels
from results.figures.scores import GRID, Scores
from results.figures.style import Drawing
from results.stats.influence import MIN_CLASS_PATIENTS

PER_TEST_SET = True
"""A report draws it once for each test set."""


def draw(results: pa.Table, options: Options) -> Drawing:
    """Precision over recall, one panel per label."""
    kind = CurveKind(
        title="Precision-recall curves",
        metric="auprc",
        curve=precision_recall_curve,
        carriers=_called,
        axes=("Recall", "Precision"),
        chance=lambda axis, share: axis.axhline(share, **CHANCE),
        begin=f", from {MIN_CLASS_PATIENTS} found patients on",
    )
    return curve_panels(results, options, kind)


def precision_recall_curve(truth: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Precision at the highest threshold that reaches each recall of GRID, (b, 101); NaN without positives."""
    hits, misses = cumulative(truth, score, weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, recall = hits / (hits + misses), hits / hits[:, -1:]
    lines = []
    for x, y in zip(recall, precision, strict=True):
        lines.append(y[_reached(x)] if np.isfinite(x[-1]) else np.full(101, np.nan))
    return np.stack(lines)


def _reached(recall: np.ndarray) -> np.ndarray:
    """Places among the thresholds, highest first, whose recall (K,) is the first to reach each of GRID, (101,)."""
    return np.minimum(np.searchsorted(recall, np.maximum(GRID, 1e-9) - 1e-12), len(recall) - 1)


def _called(run: Scores) -> tuple[np.ndarray, np.ndarray]:
    """A precision is a share of what is called positive, at the threshold that reaches the recall.

    NaN where that threshold finds positives of fewer patients than an interval needs: the first positive of a ranking
    may be its first image by luck.
    """
    order = np.argsort(-run.score, kind="stable")
    hits, misses = cumulative(run.truth, run.score, np.ones((1, len(run.truth)), np.int32))
    called = (hits + misses)[0].astype(int)
    place = called[_reached(hits[0] / hits[0, -1])] - 1
    ranked, truth = run.patients[order], run.truth[order]
    found, met = _met(ranked, truth)[place], _met(ranked, np.ones(len(order), bool))[place]
    return place + 1.0, np.where(found < MIN_CLASS_PATIENTS, np.nan, met)


def _met(patients: np.ndarray, among: np.ndarray) -> np.ndarray:
    """How many different patients the images `among` (bool) up to each place are of, (N,)."""
    first, chosen = np.zeros(len(patients)), np.flatnonzero(among)
    first[chosen[np.unique(patients[chosen], return_index=True)[1]]] = 1
    return first.cumsum()
