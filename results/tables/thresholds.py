"""`thresholds`: what each rule for the threshold gives on test, per label: fixed at 0.5, and chosen on validation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from results import levels
from results.cells.captions import data_sentence, setting_notes
from results.cells.cell import Cell
from results.cells.checks import check
from results.cells.display import AXIS_TITLES, METRIC_TITLES, show
from results.cells.options import Options
from results.cells.select import RowChoice, choose, constant, layout
from results.errors import InputError
from results.schema import MACRO, Row
from results.stats.metrics import compute, fixed_threshold, pick_threshold
from results.stats.predictions import ScoreMatrix, load_scores
from results.stats.validation import validation_scores
from results.tables.table import Table
from results.wording import count

RULES = ("0.5", "balanced_accuracy", "accuracy", "f1", "sensitivity=0.9")
"""The first is what is used when nobody chooses."""
METRICS = ("accuracy", "balanced_accuracy", "recall", "specificity", "precision", "f1")


def build(results: pa.Table, options: Options) -> Table:
    """Rows: what tells the results apart, label, rule; columns: the threshold, and the metrics on test at it.

    Everything is computed from the predictions; several seeds give means.

    Raises:
        InputError: no fitting results, no predictions, or a row whose runs differ in more than their seed.
    """
    choice = RowChoice.of(dataclasses.replace(options, metric=None), ("auroc",), None)
    rows = [row for row in choose(results, choice) if row["label"] != MACRO]
    if not rows:
        raise InputError("no results of single labels; thresholds belong to labels")
    down, _ = layout(rows, tuple(options.rows or ("init", "mode", "label_fraction")), (), chosen=bool(options.rows))
    down = tuple(axis for axis in down if axis not in ("label", "metric"))
    if not options.rows:
        alone = constant(rows, ())
        down = tuple(axis for axis in down if axis not in alone)
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((*(row[axis] for axis in down), row["label"]), []).append(row)
    names, cells = [], []
    partial = 0
    for key, group in groups.items():
        check(group, options.allow)
        for rule in RULES:
            found = [_at(row, rule) for row in group]
            partial += any(0 < sum(one.get(name) is not None for one in found) < len(found) for name in METRICS)
            shown = (show(axis, value) for axis, value in zip((*down, "label"), key, strict=True))
            names.append((*shown, _rule(rule)))
            cells.append(tuple(_mean([one.get(name) for one in found]) for name in ("threshold", *METRICS)))
    titles = tuple(METRIC_TITLES.get(name, name) for name in METRICS)
    axes = tuple(AXIS_TITLES.get(axis, axis) for axis in (*down, "label"))
    notes = ["Means over seeds where a row has several."] if any(len(group) > 1 for group in groups.values()) else []
    if partial:
        verb = "averages" if partial == 1 else "average"
        notes.append(f"{count(partial, 'row')} {verb} some metrics over only the seeds for which they are defined.")
    return Table(
        caption=f"Thresholds fixed, and chosen on validation {levels.unit(rows)}, with the metrics on test at each. "
        + data_sentence(rows),
        notes=(*notes, *setting_notes(rows, list(groups.values()), (*down, "label"))),
        row_titles=(*axes, "Rule"),
        row_names=tuple(names),
        column_names=("Threshold", *titles),
        cells=tuple(cells),
        digits=options.digits,
    )


def _rule(rule: str) -> str:
    if fixed_threshold(rule) is not None:
        return f"fixed at {rule}"
    name, _, share = rule.partition("=")
    return f"{name} at least {share}" if share else f"highest {name.replace('_', ' ')}"


def _at(row: Row, rule: str) -> dict[str, float | None]:
    """Threshold and test metrics of one run and label."""
    matrix = load_scores(str(row["source"]), str(row["test_dataset"]), row["test_dataset_hash"], levels.of(row))
    if not isinstance(matrix, ScoreMatrix):
        raise InputError(f"{row['source']}: {matrix}; thresholds are computed from the runs' predictions")
    threshold = fixed_threshold(rule)
    if threshold is None:
        val = validation_scores(row)
        truth, score = (None, None) if val is None or row["label"] not in val.labels else val.column(row["label"])[:2]
        if truth is None or score is None or not truth.any() or truth.all():
            return {}
        threshold = pick_threshold(truth, score, rule)
    return {"threshold": threshold} | compute(*matrix.column(row["label"])[:2], threshold)


def _mean(values: Sequence[float | None]) -> Cell | None:
    known = [value for value in values if value is not None]
    return Cell(value=sum(known) / len(known), n=len(known)) if known else None


MOST_IN_REPORT = 20


def repeats(results: pa.Table) -> str | None:
    """Why a report leaves the table out: it has five lines a run and label."""
    pairs = set(zip(results["source"].to_pylist(), results["label"].to_pylist(), strict=True))
    many = sum(label not in (None, MACRO) for _, label in pairs)
    if many <= MOST_IN_REPORT:
        return None
    return f"{len(RULES)} lines for each of {many} runs and labels; `cxrdist table thresholds --where ...` makes it"
