"""A metric over the amount of labels: what `label-efficiency` and `data-scaling` share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from results.cells import comparable
from results.cells.captions import caption_of, metric_title, setting_notes
from results.cells.cell import Cell, gather
from results.cells.display import show, sort_key, sorted_keys
from results.cells.options import Options
from results.cells.select import RowChoice, choose, layout
from results.figures.panels import is_one_seed, panel_count
from results.figures.style import Drawing, canvas, colour, legend_below, line_style, series_count, thinned
from results.schema import MACRO

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def over_labels(results: pa.Table, options: Options, x_axis: str) -> Drawing:
    """One line per initialisation, one panel per test set and setting.

    Args:
        results: collected results.
        options: what the user asked for; the first of `columns` is what lines stand for.
        x_axis: label_fraction or n_labelled.
    """
    choice = RowChoice.of(options, ("auroc",), (MACRO,))
    rows = choose(results, choice)
    lines = options.columns[0] if options.columns else "init"
    down, _ = layout(rows, ("label_fraction",), (lines,), chosen=False)
    panel_axes = tuple(axis for axis in down if axis != "label_fraction")
    rows = comparable.with_common_labels(rows, results, panel_axes, choice.among)
    cells = gather(rows, panel_axes, (lines, "label_fraction"), options.allow)
    panels = sorted_keys({key for key, _ in cells}, panel_axes)
    held = sorted({key[0] for _, key in cells}, key=lambda value: sort_key(lines, value))
    series_count(held, lines)
    figure, axes = canvas(panel_count(panels))
    amounts = [row[x_axis] for row in rows if row[x_axis]]
    for axis, panel in zip(axes, panels, strict=True):
        for place, one in enumerate(held):
            fractions = sorted(key[1] for row, key in cells if row == panel and key[0] == one and key[1] is not None)
            line = [cells[panel, (one, fraction)] for fraction in fractions]
            xs = fractions if x_axis == "label_fraction" else [_labelled(cell) for cell in line]
            points = [(x, cell) for x, cell in zip(xs, line, strict=True) if x and cell.value is not None]
            if all(is_one_seed(cell) for _, cell in points):  # bars, not bands: side by side
                points = [(x * 1.04 ** (place - (len(held) - 1) / 2), cell) for x, cell in points]
            _line_with_band(axis, points, place, show(lines, one))
        axis.set_title(", ".join(show(a, v) for a, v in zip(panel_axes, panel, strict=True)))
        axis.set_xscale("log")
        if amounts:
            axis.set_xlim(min(amounts) / 1.3, max(amounts) * 1.3)
        if x_axis == "label_fraction":
            ticks = sorted({row["label_fraction"] for row in rows if row["label_fraction"]})
            axis.set_xticks(ticks, thinned(ticks, [show("label_fraction", tick) for tick in ticks], _AXIS, log=True))
            axis.minorticks_off()
        elif len(counts := sorted({round(_labelled(cell)) for cell in cells.values() if _labelled(cell)})) <= 6:
            axis.set_xticks(counts, thinned(counts, [f"{count:,}" for count in counts], _AXIS, log=True))
            axis.minorticks_off()
        axis.set_xlabel("Labels used" if x_axis == "label_fraction" else "Labelled training images")
        axis.set_ylabel(metric_title(rows))
    _common_range(axes, list(cells.values()))
    legend_below(figure, axes)
    noun = "share of labels used" if x_axis == "label_fraction" else "number of labelled images"
    caption = caption_of(
        "{metric} over the " + noun, rows, (*panel_axes, lines, "label_fraction"), list(cells.values()), "panel"
    )
    parts = []
    if any(not is_one_seed(cell) for cell in cells.values()):
        parts.append("Bands are the intervals, small dots the seeds.")
    if any(is_one_seed(cell) for cell in cells.values()):
        parts.append(ALONE)
    parts += setting_notes(rows, [cell.rows for cell in cells.values()], (*panel_axes, lines, "label_fraction"))
    return Drawing(figure=figure, caption=" ".join([caption, *parts]))


_AXIS = 2.2
"""Width of a panel's axis between its outermost ticks, inches, at least."""

ALONE = (
    "Hollow, with dotted bars: one trained model, whose interval leaves out the spread over seeds and is too narrow."
)
"""What a caption says of points of one seed."""


def _line_with_band(axis: Axes, points: Sequence[tuple[float, Cell]], place: int, name: str) -> None:
    """A line with a band where there are several seeds; hollow marks with dotted bars where there is one."""
    if not points:
        return
    style, tint = line_style(place), colour(place)
    faint = all(is_one_seed(cell) for _, cell in points)
    xs, ys = [x for x, _ in points], [cell.value or 0.0 for _, cell in points]
    (line,) = axis.plot(xs, ys, label=name, zorder=3, alpha=0.6 if faint else 1.0, **style)
    if faint:
        line.set_markerfacecolor("white")
    for x, cell in points:
        if cell.low is None or cell.high is None:
            continue
        if is_one_seed(cell):
            axis.vlines(x, cell.low, cell.high, color=tint, linewidth=1.0, linestyles=":", zorder=1)
            axis.plot([x], [cell.value or 0.0], color=tint, marker=style["marker"], markerfacecolor="white", zorder=4)
    banded = [
        (x, cell.low, cell.high)
        for x, cell in points
        if cell.low is not None and cell.high is not None and not is_one_seed(cell)
    ]
    if len(banded) > 1:
        low, high = [item[1] for item in banded], [item[2] for item in banded]
        axis.fill_between([item[0] for item in banded], low, high, color=tint, alpha=0.15, linewidth=0)
    elif banded:
        x, bottom, top = banded[0]
        axis.vlines(x, bottom, top, color=tint)
    for x, cell in points:
        values = [row["value"] for row in cell.rows if row["value"] is not None]
        if len(values) > 1:
            axis.plot([x] * len(values), values, ".", color=tint, markersize=3, alpha=0.7, zorder=2)


def _labelled(cell: Cell) -> float:
    counts = [row["n_labelled"] for row in cell.rows if row["n_labelled"]]
    return sum(counts) / len(counts) if counts else 0.0


def _common_range(axes: Sequence[Axes], cells: Sequence[Cell]) -> None:
    """One scale for all panels that holds every value and every interval."""
    values = [row["value"] for cell in cells for row in cell.rows if row["value"] is not None]
    values += [bound for cell in cells for bound in (cell.low, cell.high) if bound is not None]
    if values:
        low, high = min(values), max(values)
        margin = max(0.05 * (high - low), 0.01)
        for axis in axes:
            axis.set_ylim(max(low - margin, -0.02), min(high + margin, 1.02))
