"""What tables that go back to the predictions share: the runs of their rows, and cells of influences."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from results.cells import comparable
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
    note: str
    """Which runs were left out by default; empty where none."""

    @property
    def titles(self) -> tuple[str, ...]:
        """Heads of the axes."""
        return tuple(AXIS_TITLES.get(axis, axis) for axis in self.axes)

    def names(self, key: tuple[Any, ...]) -> tuple[str, ...]:
        """A group as its row shows it."""
        return tuple(show(axis, value) for axis, value in zip(self.axes, key, strict=True))


def run_groups(results: pa.Table, options: Options, axes: tuple[str, ...], *, all_fractions: bool = False) -> RunGroups:
    """The runs that a table is about, by what tells them apart.

    Args:
        results: collected results.
        options: what the user asked for; `metric` has no effect.
        axes: the table's own, where the user names none.
        all_fractions: whether all label fractions are shown where the user chose none; else the largest alone.

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
    rows, note = (rows, "") if all_fractions else largest_fraction(rows, options)
    down, _ = layout(rows, tuple(options.rows or axes), (), chosen=bool(options.rows))
    rows = comparable.with_common_labels(rows, results, down, choice.among)
    rows = [row for row in rows if row["value"] is not None]
    cells = gather(rows, down, (), options.allow)
    order = sorted_keys({key for key, _ in cells}, down)
    return RunGroups(axes=down, groups={key: cells[key, ()] for key in order}, rows=rows, note=note.strip())


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
