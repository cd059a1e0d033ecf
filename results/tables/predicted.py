"""What tables that go back to the predictions share: the runs of their rows, and cells of influences."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from results.cells import comparable
from results.cells.captions import macro_notes, setting_notes
from results.cells.cell import Cell, gather
from results.cells.display import AXIS_TITLES, show, sorted_keys
from results.cells.options import Options
from results.cells.select import RowChoice, choose, largest_fraction, layout
from results.errors import InputError
from results.levels import of as level_of
from results.schema import MACRO, Row
from results.stats import influence, uncertainty
from results.stats.influence import Influence
from results.stats.predictions import ScoreMatrix, load_scores


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunGroups:
    """The runs of a table, those that differ in their seed together."""

    axes: tuple[str, ...]
    """What tells groups apart, going down."""
    groups: dict[tuple[Any, ...], Cell]
    """Value of the axes -> the runs, with their AUROC, in the order of the rows."""
    rows: list[Row]
    """All of them."""
    by: tuple[str, ...]
    """Those of the axes that tell comparisons apart: groups that agree in them have means over the same labels."""
    note: str
    """Which runs were left out by default; empty where none."""

    @property
    def titles(self) -> tuple[str, ...]:
        """Heads of the axes."""
        return tuple(AXIS_TITLES.get(axis, axis) for axis in self.axes)

    def names(self, key: tuple[Any, ...]) -> tuple[str, ...]:
        """A group as its row shows it."""
        return tuple(show(axis, value) for axis, value in zip(self.axes, key, strict=True))

    def notes(self) -> list[str]:
        """Over which labels means go, and in which settings runs differ."""
        groups = [cell.rows for cell in self.groups.values()]
        return [*macro_notes(self.rows, self.by), *setting_notes(self.rows, groups, self.axes)]


def run_groups(results: pa.Table, options: Options, axes: tuple[str, ...]) -> RunGroups:
    """The runs that a table is about, by what tells them apart.

    Groups stand below each other and are compared, so that their means go over the labels that all of them have. Only
    the largest label fraction is taken, unless fractions are rows or chosen by a filter.

    Args:
        results: collected results.
        options: what the user asked for; `metric` has no effect.
        axes: the table's own, where the user names none.

    Raises:
        InputError: no fitting results, results that may not be mixed, groups that are not one thing.
    """
    if options.columns:
        raise InputError("this table has columns of its own; leave out --columns")
    chosen = dataclasses.replace(options, metric="auroc")
    labels = None if "label" in options.rows else (MACRO,)
    choice = RowChoice.of(chosen, ("auroc",), labels)
    rows = [row for row in choose(results, choice) if row["value"] is not None]
    if not rows:
        raise InputError("no run has positives and negatives of these labels in its test set")
    rows, note = (rows, "") if "label_fraction" in options.rows else largest_fraction(rows, options)
    down, by = layout(rows, tuple(options.rows or axes), (), chosen=bool(options.rows))
    rows = comparable.with_common_labels(rows, results, by, choice.among)
    rows = [row for row in rows if row["value"] is not None]
    cells = gather(rows, down, (), options.allow)
    order = sorted_keys({key for key, _ in cells}, down)
    return RunGroups(axes=down, groups={key: cells[key, ()] for key in order}, rows=rows, by=by, note=note.strip())


def labels_of(row: Row, matrix: ScoreMatrix) -> tuple[str, ...]:
    """The labels that a row is of, or averages."""
    if row["label"] != MACRO:
        return (row["label"],)
    return tuple(row.get(comparable.LABELS, matrix.labels))


def scores_of(row: Row) -> ScoreMatrix:
    """The test predictions behind a row.

    Raises:
        InputError: they are gone or cannot be read.
    """
    found = load_scores(str(row["source"]), str(row["test_dataset"]), row["test_dataset_hash"], level_of(row))
    if isinstance(found, str):
        raise InputError(f"{found} beside {row['source']}; this table is made from predictions")
    return found


def scores_of_seeds(rows: Sequence[Row]) -> list[ScoreMatrix]:
    """The test predictions behind the rows of one group, by seed.

    Raises:
        InputError: as `scores_of`, or the runs were tested on different images, so that patients cannot be matched.
    """
    found = [scores_of(row) for row in rows]
    for row, one in zip(rows, found, strict=True):
        if not (np.array_equal(one.keys, found[0].keys) and np.array_equal(one.patients, found[0].patients)):
            raise InputError(
                f"{row['source']} and {rows[0]['source']} were tested on different images of {row['test_dataset']}, and"
                " this table cannot take them together; choose one set with --where test_dataset_hash=..., or evaluate"
                " them on one set"
            )
    return found


Bounds = Callable[[Sequence[Influence]], tuple[float, float] | tuple[None, None]]
"""Runs that differ in their seed -> the 95 % interval of their mean."""


def cell_of(runs: Sequence[Influence | None], few: bool = False, bounds: Bounds = uncertainty.interval) -> Cell:
    """A cell of runs that differ in their seed; undefined where a run's value is.

    Args:
        runs: one a seed.
        few: whether too few patients carry the value for an interval.
        bounds: makes the interval.
    """
    held = [run for run in runs if run is not None]
    if len(held) < len(runs) or not held:
        return Cell()
    value = sum(run.value for run in held) / len(held)
    low, high = (None, None) if few else bounds(held)
    kind = None if low is None else "both" if len(held) > 1 else "patients"
    return Cell(value=value, low=low, high=high, n=len(held), interval=kind, few=few)


def mean_over_labels(parts: Sequence[Influence | None]) -> Influence | None:
    """The mean of several labels' rate; None where one is not defined."""
    held = [part for part in parts if part is not None]
    return influence.mean(held) if held and len(held) == len(parts) else None
