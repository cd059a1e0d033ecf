"""Tables that lay results out along axes: what those of one metric by two axes share."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from results.cells import comparable
from results.cells.captions import caption_of, notes_of
from results.cells.cell import Cell, gather
from results.cells.display import AXIS_TITLES, show, sorted_keys
from results.cells.options import Options
from results.cells.select import RowChoice, choose, layout
from results.cells.significance import marked
from results.schema import MACRO, Row
from results.tables.table import Table
from results.wording import count, listing


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pivot:
    """A table that lays results out along axes."""

    title: str
    """Start of the caption; {metric} is filled in."""
    rows: tuple[str, ...]
    """Axes going down."""
    columns: tuple[str, ...]
    """Axes going across."""
    metrics: tuple[str, ...] = ("auroc",)
    """Metrics, when the user names none."""
    labels: tuple[str, ...] | None = (MACRO,)
    """Labels, when the user names none; None takes all."""
    compare: str = "row"
    """Whether the best cell is looked for along a row or down a column."""
    allow: tuple[str, ...] = ()
    """Mixtures that the table shows without being asked, in rows of their own."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LaidOut:
    """A table and what it was laid out from."""

    table: Table
    rows: list[Row]
    """The results."""
    down: tuple[str, ...]
    """Axes going down."""
    by: tuple[str, ...]
    """Axes that tell comparisons apart (see `comparable.with_common_labels`)."""
    row_keys: list[tuple[Any, ...]]
    """The values of `down`, row by row."""
    across: tuple[str, ...]
    """Axes going across."""
    column_keys: list[tuple[Any, ...]]
    """The values of `across`, column by column."""


def pivot(preset: Pivot, results: pa.Table, options: Options) -> Table:
    """The results laid out as the preset says, with what its rows and means count.

    Raises:
        InputError: no fitting results, results that may not be mixed, cells that are not one thing.
    """
    return with_counts(lay_out(preset, results, options))


def with_counts(laid: LaidOut) -> Table:
    """The table with the images, positives and averaged labels that its rows count."""
    return _with_averaged(_with_counts(laid.table, laid.down, laid.row_keys))


def lay_out(preset: Pivot, results: pa.Table, options: Options) -> LaidOut:
    """The results laid out as the preset says.

    Raises:
        InputError: as `pivot`.
    """
    options = dataclasses.replace(options, allow=(*options.allow, *preset.allow))
    choice = RowChoice.of(options, preset.metrics, preset.labels)
    rows = choose(results, choice)
    across = tuple(options.columns or preset.columns)
    down, added = layout(rows, tuple(options.rows or preset.rows), across, chosen=bool(options.rows))
    by = down if preset.compare == "row" else (*added, *across)  # what is compared, and so means over the same labels
    rows = comparable.with_common_labels(rows, results, by, choice.among)
    if any(row["label"] != MACRO for row in rows) and comparable.only_label(rows) is not None:
        rows = [row for row in rows if row["label"] != MACRO]  # the mean of one label is that label's row again
    cells = gather(rows, down, across, options.allow)
    row_keys = sorted_keys({key for key, _ in cells}, down)
    column_keys = sorted_keys({key for _, key in cells}, across)
    grid = [[cells.get((row, column)) for column in column_keys] for row in row_keys]
    verdict = None
    if options.test:
        # Only cells on one test set, level, label, metric and added axis meet.
        same = ("test_dataset", "level", "label", "metric", *added)
        grid, verdict = marked(
            grid, lambda r, c, cell: (r if preset.compare == "row" else c, *(cell.rows[0][axis] for axis in same))
        )
    table = Table(
        caption=caption_of(
            _title(preset, options),
            rows,
            (*down, *across),
            [cell for line in grid for cell in line if cell],
            scope=preset.compare,
        ),
        notes=notes_of(rows, grid, verdict, preset.compare, by=by, shown=(*down, *across)),
        row_titles=tuple(AXIS_TITLES.get(axis, axis) for axis in down),
        row_names=tuple(tuple(show(axis, value) for axis, value in zip(down, key, strict=True)) for key in row_keys),
        column_title=" / ".join(AXIS_TITLES.get(axis, axis) for axis in across),
        column_names=tuple(
            ", ".join(show(axis, value) for axis, value in zip(across, key, strict=True)) for key in column_keys
        ),
        cells=tuple(tuple(line) for line in grid),
        digits=options.digits,
    )
    return LaidOut(table=table, rows=rows, down=down, by=by, row_keys=row_keys, across=across, column_keys=column_keys)


def _title(preset: Pivot, options: Options) -> str:
    """The preset's title, or what the user's own axes make of it."""
    if not options.rows and not options.columns:
        return preset.title
    axes = [
        AXIS_TITLES.get(axis, axis).lower()
        for axis in (*(options.rows or preset.rows), *(options.columns or preset.columns))
    ]
    return "{metric} by " + listing(axes)


def _with_averaged(table: Table) -> Table:
    """Say how many labels means go over, where that differs: in a column, or in the heads of the columns."""
    counts = [[_averaged(cell) for cell in line] for line in table.cells]
    held = {number for line in counts for number in line if number}
    if len(held) < 2:
        return table  # the caption or a note says it
    heads = [{line[place] or 0 for line in counts if line[place]} for place in range(len(table.column_names))]
    if all(len(numbers) < 2 for numbers in heads):
        names = tuple(
            f"{name} ({count(max(numbers), 'label')})" if numbers else name
            for name, numbers in zip(table.column_names, heads, strict=True)
        )
        return dataclasses.replace(table, column_names=names)
    words = ["/".join(map(str, dict.fromkeys(number for number in line if number))) for line in counts]
    return dataclasses.replace(
        table,
        row_titles=(*table.row_titles, "Labels averaged"),
        row_names=tuple((*names, word) for names, word in zip(table.row_names, words, strict=True)),
    )


def _averaged(cell: Cell | None) -> int | None:
    """Labels that a cell's means go over; None for other cells."""
    if cell is None:
        return None
    held = {row["n_labels"] for row in cell.rows if row["label"] == MACRO and row["value"] is not None}
    return max(held, default=None)


def _with_counts(table: Table, down: Sequence[str], keys: Sequence[tuple[Any, ...]]) -> Table:
    """Say how many labelled images a fraction is, and how many positives a pathology has."""
    for axis, column, title in (("label_fraction", "n_labelled", "Images"), ("label", "n_pos", "Positives")):
        if axis not in down or down[-1] != axis:
            continue
        words = []
        for line in table.cells:
            held = {row[column] for cell in line if cell for row in cell.rows if row[column] is not None}
            words.append("" if not held else f"{min(held)}" if len(held) == 1 else f"{min(held)}\u2013{max(held)}")
        if any(words):
            return dataclasses.replace(
                table,
                row_titles=(*table.row_titles, title),
                row_names=tuple((*names, word) for names, word in zip(table.row_names, words, strict=True)),
            )
    return table
