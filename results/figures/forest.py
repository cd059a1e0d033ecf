"""`forest`: a metric, or its difference to one initialisation, over test sets and labels, each with its interval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from results.cells import comparable
from results.cells.captions import caption_of, setting_notes
from results.cells.cell import Cell, gather
from results.cells.display import METRIC_TITLES, show, sort_key, sorted_keys
from results.cells.options import Options
from results.cells.select import RowChoice, choose, largest_fraction, layout
from results.cells.significance import Comparer
from results.errors import InputError
from results.figures.panels import is_one_seed, panel_count
from results.figures.style import Drawing, canvas, colour, legend_below, marker, series_count
from results.schema import MACRO
from results.stats.delong import Difference
from results.wording import listing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DOWN = ("test_dataset", "label")
"""What the lines of the figure are."""


def draw(results: pa.Table, options: Options) -> Drawing:
    """One line per test set and label, one mark per initialisation; means over labels stand last, in a bold line."""
    choice = RowChoice.of(options, ("auroc",), None)
    rows, note = largest_fraction(choose(results, choice), options)
    axis = options.columns[0] if options.columns else "init"
    down, _ = layout(rows, DOWN, (axis,), chosen=False)
    panel_axes = tuple(name for name in down if name not in DOWN)
    rows = comparable.with_common_labels(rows, results, (*panel_axes, "test_dataset"), choice.among)
    if comparable.only_label(rows) is not None and any(row["label"] != MACRO for row in rows):
        rows = [row for row in rows if row["label"] != MACRO]
    cells = gather(rows, panel_axes, (*DOWN, axis), options.allow)
    panels = sorted_keys({key for key, _ in cells}, panel_axes)
    panel_count(panels)
    lines = sorted_keys({key[:2] for _, key in cells}, DOWN)
    values = sorted({key[2] for _, key in cells}, key=lambda value: sort_key(axis, value))
    reference = _reference(values, axis, options)
    shown = [value for value in values if reference is None or value != reference]
    series_count(shown, axis)
    figure, axes = canvas(len(panels), width=4.8, height=0.8 + len(lines) * (0.1 * len(shown) + 0.12), across=2)
    comparer, reasons, methods = Comparer(), set(), set()
    several_sets = len({dataset for dataset, _ in lines}) > 1
    for panel_axis, panel in zip(axes, panels, strict=True):
        for place, value in enumerate(shown):
            marks = []
            for y, line in enumerate(lines):
                cell = cells.get((panel, (*line, value)))
                if cell is not None and reference is not None:
                    cell = _against(cell, cells.get((panel, (*line, reference))), comparer, reasons, methods)
                if cell is not None and cell.value is not None:
                    marks.append((y + 0.7 * ((place + 0.5) / len(shown) - 0.5), line[1] == MACRO, cell))
            _marks(panel_axis, marks, place, show(axis, value))
        names = [
            f"{dataset}: {show('label', label)}" if several_sets else show("label", label) for dataset, label in lines
        ]
        panel_axis.set_yticks(range(len(lines)), names)
        panel_axis.set_ylim(len(lines) - 0.4, -0.6)
        panel_axis.grid(visible=False, axis="y")
        metric = str(METRIC_TITLES.get(rows[0]["metric"], rows[0]["metric"]))
        if reference is not None:
            panel_axis.axvline(0.0, color="#666666", linewidth=0.8)
            panel_axis.set_xlabel(f"{metric}, minus {show(axis, reference)}")
        else:
            panel_axis.set_xlabel(metric)
        panel_axis.set_title(", ".join(show(a, v) for a, v in zip(panel_axes, panel, strict=True)))
    legend_below(figure, axes)
    by = (*panel_axes, *DOWN, axis)
    title = "{metric} by test set and label" if several_sets else "{metric} by label"
    parts = [f"{caption_of(title, rows, by, list(cells.values()), 'panel')}{note} Lines are the intervals."]
    if reference is not None:
        how = f", by {listing(sorted(methods))}" if methods else ""
        parts = [part.replace(" Lines are the intervals.", "") for part in parts]
        parts.append(
            f"Shown are differences: minus {show(axis, reference)}, on the same test set, with 95 % intervals{how}, not"
            " corrected for being many."
        )
        parts += [f"Not compared: {listing(sorted(reasons))}."] if reasons else []
    if any(is_one_seed(cell) for cell in cells.values()):
        parts.append("Hollow: of one trained model, whose interval leaves out the spread over seeds and is too narrow.")
    parts += setting_notes(rows, [cell.rows for cell in cells.values()], by)
    return Drawing(figure=figure, caption=" ".join(parts))


def _reference(values: list[Any], axis: str, options: Options) -> Any:
    if options.difference is None:
        return None
    for value in values:
        if options.difference in (str(value), show(axis, value)) and len(values) > 1:
            return value
    raise InputError(f"--difference {options.difference}: nothing to compare; {axis} has {', '.join(map(str, values))}")


def _against(cell: Cell, base: Cell | None, comparer: Comparer, reasons: set[str], methods: set[str]) -> Cell | None:
    """A cell of the difference to the reference's; None where they cannot be compared."""
    if base is None:
        return None
    outcome = comparer.compare(cell, base)
    if not isinstance(outcome, Difference):
        reasons.add(outcome)
        return None
    methods.add(outcome.method)
    return Cell(value=outcome.value, low=outcome.low, high=outcome.high, n=min(cell.n, base.n))


def _marks(axis: Axes, marks: list[tuple[float, bool, Cell]], place: int, name: str) -> None:
    """The marks of one initialisation with their intervals; those of means are larger."""
    tint, labelled = colour(place), False
    for y, is_mean, cell in marks:
        axis.plot(
            [cell.value or 0.0],
            [y],
            marker(place),
            color=tint,
            markersize=6.5 if is_mean else 4.5,
            markerfacecolor="white" if is_one_seed(cell) else tint,
            label="" if labelled else name,
            zorder=3,
        )
        labelled = True
        if cell.low is not None and cell.high is not None:
            axis.hlines(y, cell.low, cell.high, color=tint, linewidth=1.8 if is_mean else 1.1, zorder=2)
