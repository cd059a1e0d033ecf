"""A run's test scores recalibrated on its validation predictions, label by label."""

from __future__ import annotations

import dataclasses

import numpy as np

from results.schema import Row
from results.stats import calibration
from results.stats.predictions import ScoreMatrix
from results.stats.validation import validation_scores

METHODS = ("temperature",)
"""How scores can be recalibrated."""


def sentence(method: str) -> str:
    """For a caption."""
    return f"scores recalibrated by {method} scaling on validation, one {method} for each run and label"


def recalibrated_scores(row: Row, matrix: ScoreMatrix, method: str) -> ScoreMatrix | None:
    """The matrix with recalibrated scores; labels without both classes on validation are left out.

    Args:
        row: a result of the run.
        matrix: its test predictions.
        method: one of `METHODS`.

    Returns:
        None where the run has no validation predictions, or none at the row's level.
    """
    assert method in METHODS
    val = validation_scores(row)
    if val is None:
        return None
    found = {label: t for label in matrix.labels if (t := _temperature(val, label)) is not None}
    if not found:
        return None
    kept = matrix.only(list(found))
    score = np.stack([calibration.recalibrated(kept.score[:, j], t) for j, t in enumerate(found.values())], axis=1)
    return dataclasses.replace(kept, score=score)


def _temperature(val: ScoreMatrix, label: str) -> float | None:
    if label not in val.labels:
        return None
    truth, score, _ = val.column(label)
    return calibration.temperature(truth, score) if truth.any() and not truth.all() else None
