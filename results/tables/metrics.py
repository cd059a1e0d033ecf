"""`metrics`: everything that is usually reported of a classifier, one row a run or cell and label."""

from __future__ import annotations

import dataclasses
from typing import Any

import pyarrow as pa

from results import levels
from results.cells.cell import Cell
from results.cells.options import Options
from results.cells.select import RowChoice, choose, make_axes
from results.metric_names import COUNTS
from results.schema import MACRO
from results.tables.pivot import Pivot, lay_out
from results.tables.table import Table

PIVOT = Pivot(
    title="Metrics of each model",
    rows=("init", "mode", "label_fraction", "label"),
    columns=("metric",),
    metrics=("accuracy", "precision", "recall", "specificity", "f1", "auroc", "auprc"),
    labels=None,
    compare="column",
)


def build(results: pa.Table, options: Options) -> Table:
    """Metrics with intervals, and with the table's own metrics the confusion counts (means over seeds).

    Counts belong to labels: rows of means have none.
    """
    laid = lay_out(PIVOT, results, options)
    if options.metric or options.columns or all(row["label"] == MACRO for row in laid.rows):
        return laid.table
    counted = choose(results, RowChoice.of(options, COUNTS, None))
    make_axes(counted, laid.down)
    held: dict[tuple[Any, ...], dict[str, list[float]]] = {}
    for row in counted:
        if row["value"] is not None:
            key = tuple(row.get(axis) for axis in laid.down)
            held.setdefault(key, {}).setdefault(row["metric"], []).append(row["value"])
    extra = [tuple(_mean(held.get(key, {}).get(name)) for name in COUNTS) for key in laid.row_keys]
    return dataclasses.replace(
        laid.table,
        column_title="",
        column_names=(*laid.table.column_names, *(name.upper() for name in COUNTS)),
        cells=tuple((*line, *more) for line, more in zip(laid.table.cells, extra, strict=True)),
        notes=(*laid.table.notes, f"TP, FP, TN, FN: {levels.unit(counted)} at the threshold (means over seeds)."),
    )


def _mean(values: list[float] | None) -> Cell | None:
    if not values:
        return None
    mean = sum(values) / len(values)
    return Cell(value=mean, n=len(values), text=f"{mean:.0f}" if mean == int(mean) else f"{mean:.1f}")


MOST_IN_REPORT = 60


def repeats(results: pa.Table) -> str | None:
    """Why a report leaves the table out: it has a line a cell and label."""
    held = zip(*(results[name].to_pylist() for name in ("config", "test_dataset", "label")), strict=True)
    many = len(set(held))
    return None if many <= MOST_IN_REPORT else "a line for each cell and label; `cxrdist table metrics` makes it"
