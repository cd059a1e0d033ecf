"""From predictions to rows of metrics.parquet: the one place where results are made of scores."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)
from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from results import levels
from results.errors import InputError
from results.metric_names import COUNTS, METRICS, THRESHOLD_METRICS
from results.schema import CONTEXT, MACRO, PREDICTIONS, check_predictions, conform
from results.schema import METRICS as METRICS_SCHEMA
from results.stats import uncertainty
from results.stats.influence import INTERVAL_METRICS, mean
from results.stats.metrics import compute, fixed_threshold, pick_threshold
from results.stats.predictions import ScoreMatrix, score_matrices
from results.stats.tested import Tested, of_matrix


def metric_rows(
    predictions: pa.Table | Mapping[str, Any],
    context: Mapping[str, Any],
    *,
    intervals: bool = True,
    threshold_rule: str = "balanced_accuracy",
    level: str = levels.IMAGE,
) -> list[dict[str, Any]]:
    """Rows of `schema.METRICS` for the test split of every dataset in `predictions`.

    Per label all metrics and counts, then a macro row per metric: the mean over the labels for which it is defined
    (`n_labels`; the others are counted in `n_labels_undefined`). Thresholds are chosen on the val rows in the same
    table: those of `context["train_dataset"]`, else those of the test set itself; without val rows they, and what
    depends on them, are null. Intervals are over test patients, at 95 % (see `uncertainty`).

    Args:
        predictions: columns of `schema.PREDICTIONS`, of one run.
        context: values for the columns in `schema.CONTEXT`; absent ones are null. `test_dataset` comes from
            `predictions`, `created_at` is now unless given.
        intervals: False leaves them null.
        threshold_rule: see `metrics.pick_threshold`.
        level: what is scored on test and val alike, one of `levels.LEVELS`; counts are of images or of studies.

    Raises:
        InputError: unknown context, no test rows, scores that are NaN or outside [0, 1], a sample scored twice, studies
            asked for where no test image says one.
    """
    unknown = sorted(set(context) - set(CONTEXT))
    if unknown:
        raise InputError(f"unknown context {', '.join(unknown)}; known: {', '.join(CONTEXT)}")
    table = conform(predictions, PREDICTIONS, "predictions")
    check_predictions(table, "predictions")
    parts = score_matrices(table, level=level)
    tests = {name: matrix for (name, split), matrix in parts.items() if split == "test"}
    if not tests:
        raise InputError(f"predictions hold no test rows, only {sorted({split for _, split in parts}) or 'nothing'}")
    rows = []
    for name, matrix in tests.items():
        if level != levels.IMAGE:
            _need_studies(table, name)
        shared = {column: context.get(column) for column in CONTEXT} | {"test_dataset": name, "level": level}
        shared["created_at"] = context.get("created_at") or datetime.now(UTC)
        val = parts.get((str(context.get("train_dataset")), "val")) or parts.get((name, "val"))
        thresholds = val_thresholds(matrix.labels, val, threshold_rule)
        rows += [
            dict.fromkeys(METRICS_SCHEMA.names) | shared | row for row in matrix_rows(matrix, thresholds, intervals)
        ]
    return rows


def _need_studies(table: pa.Table, dataset: str) -> None:
    test = (pc.field("dataset") == dataset) & (pc.field("split") == "test")
    held = table.filter(test)["study_id"]
    if held.null_count == len(held):
        raise InputError(
            f"the test images of {dataset} do not say which study they are of (no study_id), so they cannot be scored"
            " by study; score them with --level image"
        )


def val_thresholds(labels: tuple[str, ...], val: ScoreMatrix | None, rule: str) -> dict[str, float | None]:
    """A threshold per label, chosen on validation; None for labels without both classes there, unless it is fixed."""
    out: dict[str, float | None] = dict.fromkeys(labels, fixed_threshold(rule))
    if val is None:
        return out
    for label in labels:
        if label in val.labels:
            truth, score, _ = val.column(label)
            if truth.any() and not truth.all():
                out[label] = pick_threshold(truth, score, rule)
    return out


def matrix_rows(matrix: ScoreMatrix, thresholds: dict[str, float | None], intervals: bool) -> list[dict[str, Any]]:
    """The result columns of METRICS for one matrix: each label's metrics and counts, then the macro means."""
    values = {label: compute(*matrix.column(label)[:2], thresholds[label]) for label in matrix.labels}
    tested = {metric: of_matrix(matrix, metric, thresholds) for metric in INTERVAL_METRICS} if intervals else {}
    n_patients = len(np.unique(matrix.patients))
    rows = []
    for label in matrix.labels:
        truth, _, patients = matrix.column(label)
        for metric in METRICS + COUNTS:
            value = values[label][metric]
            low, high = _interval(tested.get(metric), [label] if value is not None else [])
            rows.append(
                {
                    "label": label,
                    "metric": metric,
                    "value": value,
                    "ci_low": low,
                    "ci_high": high,
                    "n_pos": int(truth.sum()),
                    "n_neg": int((~truth).sum()),
                    "n_patients": len(np.unique(patients)),
                    "threshold": thresholds[label] if metric in THRESHOLD_METRICS + COUNTS else None,
                }
            )
    for metric in METRICS:
        numbers = [values[label][metric] for label in matrix.labels]
        defined = [label for label, number in zip(matrix.labels, numbers, strict=True) if number is not None]
        low, high = _interval(tested.get(metric), defined)
        row = {"label": MACRO, "metric": metric, "ci_low": low, "ci_high": high, "n_patients": n_patients}
        row["value"] = float(np.mean([number for number in numbers if number is not None])) if defined else None
        rows.append(row | {"n_labels": len(defined), "n_labels_undefined": len(matrix.labels) - len(defined)})
    return rows


def _interval(tested: Tested | None, labels: Sequence[str]) -> tuple[float | None, float | None]:
    """Over test patients, of one label or the mean of several; none where too few patients carry one of them."""
    if tested is None or not labels or set(labels) & tested.few:
        return None, None
    parts = [part for part in (tested.single[label] for label in labels) if part is not None]
    return uncertainty.interval([mean(parts)]) if len(parts) == len(labels) else (None, None)
