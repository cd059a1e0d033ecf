"""`models`: models compared, with the positives they missed and their sizes."""

from __future__ import annotations

import dataclasses
from typing import Any

import pyarrow as pa

from results.cells import comparable
from results.cells.captions import threshold_sentence
from results.cells.cell import Cell
from results.cells.options import Options
from results.cells.select import RowChoice, choose
from results.schema import MACRO
from results.tables.pivot import LaidOut, Pivot, lay_out, with_counts
from results.tables.table import Table

PIVOT = Pivot(
    title="Models compared",
    rows=("arch", "init", "mode"),
    columns=("metric",),
    metrics=("balanced_accuracy", "recall", "specificity"),
    compare="column",
)


def build(results: pa.Table, options: Options) -> Table:
    """Metrics of each model; with the table's own metrics also false negatives n/N and parameters."""
    laid = lay_out(PIVOT, results, options)
    if options.metric or options.columns:
        return with_counts(laid)
    return _with_misses_and_size(laid, results, options)


def _with_misses_and_size(laid: LaidOut, results: pa.Table, options: Options) -> Table:
    """The table with false negatives n/N (all labels together, or the chosen ones) and parameters."""
    choice = RowChoice.of(
        dataclasses.replace(options, label=None if options.label == MACRO else options.label), ("fn",), None
    )
    misses = comparable.on_all(choose(results, choice), [axis for axis in laid.by if axis != "metric"])
    missed: dict[tuple[Any, ...], dict[str, list[int]]] = {}
    for row in misses:
        if row["value"] is not None and row["n_pos"] is not None:
            runs = missed.setdefault(tuple(row[axis] for axis in laid.down), {})
            held = runs.setdefault(str(row["signature"]), [0, 0])
            held[0] += int(row["value"])
            held[1] += int(row["n_pos"])
    sizes: dict[tuple[Any, ...], set[int]] = {}
    for row in laid.rows:
        if row["n_parameters"] is not None:
            sizes.setdefault(tuple(row[axis] for axis in laid.down), set()).add(row["n_parameters"])
    extra = [(_missed(missed.get(key)), _size(sizes.get(key))) for key in laid.row_keys]
    labels = {row["label"] for row in misses}
    note = "False negatives: missed positives of all positives"
    note += f", over {len(labels)} labels together" if len(labels) > 1 else ""
    note += "; mean over seeds" if any(len(runs) > 1 for runs in missed.values()) else ""
    fixed = threshold_sentence(laid.rows).startswith("Thresholds fixed")
    return dataclasses.replace(
        laid.table,
        column_title="",
        column_names=(*laid.table.column_names, "False negatives", "Parameters"),
        cells=tuple((*line, *more) for line, more in zip(laid.table.cells, extra, strict=True)),
        notes=(
            *laid.table.notes,
            f"{note}, at the {'fixed threshold' if fixed else 'threshold chosen on validation'}.",
        ),
    )


def _missed(runs: dict[str, list[int]] | None) -> Cell | None:
    if not runs:
        return None
    missed, positives = (sum(held[place] for held in runs.values()) / len(runs) for place in (0, 1))
    return Cell(value=missed, n=len(runs), text=f"{_number(missed)}/{_number(positives)}")


def _number(value: float) -> str:
    return f"{value:.0f}" if value == int(value) else f"{value:.1f}"


def _size(sizes: set[int] | None) -> Cell | None:
    if not sizes or len(sizes) > 1:
        return None
    size = next(iter(sizes))
    return Cell(value=float(size), n=1, text=f"{size / 1e6:.2f} M" if size >= 1e5 else str(size))
