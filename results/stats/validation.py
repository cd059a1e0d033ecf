"""A run's metric on its validation images, by which settings are chosen."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from results import dataset_names, levels
from results.collect import predictions_beside
from results.errors import InputError
from results.metric_names import METRICS
from results.schema import MACRO, Row, read_predictions
from results.stats.effects import LABELS, thresholds_of
from results.stats.metrics import compute
from results.stats.predictions import ScoreMatrix, score_matrices


def validation_value(row: Row, metric: str) -> float | None:
    """A run's metric on validation, at the row's level: one label's, or the mean over labels where it is defined."""
    sets = tuple((str(row[name]), row[f"{name}_hash"]) for name in ("train_dataset", "test_dataset"))
    matrix = _validation_matrix(str(row["source"]), sets, levels.of(row))
    if matrix is None or metric not in METRICS:
        return None
    thresholds = thresholds_of(str(row["source"]), str(row["test_dataset"]), row["test_dataset_hash"], levels.of(row))
    values = [
        compute(*matrix.column(label)[:2], thresholds.get(label))[metric]
        for label in ([row["label"]] if row["label"] != MACRO else row.get(LABELS, matrix.labels))
        if label in matrix.labels
    ]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def validation_scores(row: Row) -> ScoreMatrix | None:
    """A run's predictions on its validation split, at the row's level; None where they are gone or say no study.

    Args:
        row: a result of the run; its `train_dataset`, else its `test_dataset`, names the set.
    """
    sets = tuple((str(row[name]), row[f"{name}_hash"]) for name in ("train_dataset", "test_dataset"))
    level = levels.of(row)
    matrix = _validation_matrix(str(row["source"]), sets, level)
    if matrix is None or level == levels.IMAGE:
        return matrix
    images = _validation_matrix(str(row["source"]), sets, levels.IMAGE)
    # Without study ids each image is a study by itself, and a threshold of images is not one of studies.
    return None if images is not None and np.array_equal(images.keys, matrix.keys) else matrix


def _validation_matrix(source: str, sets: tuple[tuple[str, str | None], ...], level: str) -> ScoreMatrix | None:
    path = predictions_beside(source)
    try:
        return None if path is None else _read(path, sets, level, path.stat().st_mtime_ns)
    except (InputError, OSError):
        return None


@functools.lru_cache(maxsize=256)
def _read(path: Path, sets: tuple[tuple[str, str | None], ...], level: str, _written: int) -> ScoreMatrix | None:
    held = score_matrices(read_predictions(path), "val", level)
    names = [dataset_names.in_run(name, content, (known for known, _ in held)) for name, content in sets]
    return next((held[name, "val"] for name in names if name is not None), None)
