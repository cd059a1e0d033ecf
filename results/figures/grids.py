"""Figures of the metrics themselves: curves over the amount of labels, bars per pathology."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from results.cells import comparable
from results.cells.captions import caption_of, metric_title, setting_notes
from results.cells.cell import Cell, gather
from results.cells.display import METRIC_TITLES, show, sort_key
from results.cells.options import Options
from results.cells.select import Choice, Row, choose, layout
from results.errors import InputError
from results.figures.style import COLOURS, HATCHES, Drawing, canvas, legend_below, look
from results.schema import MACRO

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_PANELS = 24


def label_efficiency(results: pa.Table, options: Options) -> Drawing:
    """Metric over the share of labels, one line per initialisation, one panel per test set and setting."""
    return _over_labels("label-efficiency", results, options, "label_fraction")


def data_scaling(results: pa.Table, options: Options) -> Drawing:
    """Metric over the number of labelled images, one line per initialisation."""
    return _over_labels("data-scaling", results, options, "n_labelled")


def _over_labels(name: str, results: pa.Table, options: Options, x_axis: str) -> Drawing:
    choice = Choice.of(options, ("auroc",), (MACRO,))
    rows = choose(results, choice)
    lines = options.columns[0] if options.columns else "init"
    down, _ = layout(rows, ("label_fraction",), (lines,), chosen=False)
    panel_axes = tuple(axis for axis in down if axis != "label_fraction")
    rows = comparable.comparable(rows, results, panel_axes, choice.among)
    cells = gather(rows, panel_axes, (lines, "label_fraction"), options.allow)
    panels = _sorted({key for key, _ in cells}, panel_axes)
    held = sorted({key[0] for _, key in cells}, key=lambda value: sort_key(lines, value))
    figure, axes = canvas(_panel_count(panels))
    amounts = [row[x_axis] for row in rows if row[x_axis]]
    for axis, panel in zip(axes, panels, strict=True):
        for place, one in enumerate(held):
            fractions = sorted(key[1] for row, key in cells if row == panel and key[0] == one and key[1] is not None)
            line = [cells[panel, (one, fraction)] for fraction in fractions]
            xs = fractions if x_axis == "label_fraction" else [_labelled(cell) for cell in line]
            points = [(x, cell) for x, cell in zip(xs, line, strict=True) if x and cell.value is not None]
            if all(_alone(cell) for _, cell in points):  # bars, not bands: side by side
                points = [(x * 1.04 ** (place - (len(held) - 1) / 2), cell) for x, cell in points]
            _line_with_band(axis, points, place, show(lines, one))
        axis.set_title(", ".join(show(a, v) for a, v in zip(panel_axes, panel, strict=True)))
        axis.set_xscale("log")
        if amounts:
            axis.set_xlim(min(amounts) / 1.3, max(amounts) * 1.3)
        if x_axis == "label_fraction":
            ticks = sorted({row["label_fraction"] for row in rows if row["label_fraction"]})
            axis.set_xticks(ticks, [show("label_fraction", tick) for tick in ticks])
            axis.minorticks_off()
        elif len(counts := sorted({round(_labelled(cell)) for cell in cells.values() if _labelled(cell)})) <= 6:
            axis.set_xticks(counts, [f"{count:,}" for count in counts])
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
    if any(not _alone(cell) for cell in cells.values()):
        parts.append("Bands are the intervals, small dots the seeds.")
    if any(_alone(cell) for cell in cells.values()):
        parts.append(ALONE)
    parts += setting_notes(rows, [cell.rows for cell in cells.values()], (*panel_axes, lines, "label_fraction"))
    return Drawing(name=name, figure=figure, caption=" ".join([caption, *parts]))


ALONE = (
    "Hollow, with dotted bars: one trained model, whose interval leaves out the spread over seeds and is too narrow."
)
"""What a caption says of points of one seed."""


def _alone(cell: Cell) -> bool:
    """Whether a point is one trained model, so that its interval says nothing of how others would do."""
    return cell.value is not None and cell.n < 2


def _line_with_band(axis: Axes, points: Sequence[tuple[float, Cell]], place: int, name: str) -> None:
    """A line with a band where there are several seeds; hollow marks with dotted bars where there is one."""
    if not points:
        return
    style, colour = look(place), COLOURS[place % len(COLOURS)]
    faint = all(_alone(cell) for _, cell in points)
    xs, ys = [x for x, _ in points], [cell.value or 0.0 for _, cell in points]
    (line,) = axis.plot(xs, ys, label=name, zorder=3, alpha=0.6 if faint else 1.0, **style)
    if faint:
        line.set_markerfacecolor("white")
    for x, cell in points:
        if cell.low is None or cell.high is None:
            continue
        if _alone(cell):
            axis.vlines(x, cell.low, cell.high, color=colour, linewidth=1.0, linestyles=":", zorder=1)
            axis.plot([x], [cell.value or 0.0], color=colour, marker=style["marker"], markerfacecolor="white", zorder=4)
    banded = [
        (x, cell.low, cell.high)
        for x, cell in points
        if cell.low is not None and cell.high is not None and not _alone(cell)
    ]
    if len(banded) > 1:
        low, high = [item[1] for item in banded], [item[2] for item in banded]
        axis.fill_between([item[0] for item in banded], low, high, color=colour, alpha=0.15, linewidth=0)
    elif banded:
        x, bottom, top = banded[0]
        axis.vlines(x, bottom, top, color=colour)
    for x, cell in points:
        values = [row["value"] for row in cell.rows if row["value"] is not None]
        if len(values) > 1:
            axis.plot([x] * len(values), values, ".", color=colour, markersize=3, alpha=0.7, zorder=2)


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


def per_class(results: pa.Table, options: Options) -> Drawing:
    """Bars per pathology, one per initialisation, with intervals."""
    choice = Choice.of(options, ("auroc",), None)
    rows, note = largest_fraction(choose(results, choice), options)
    metric = rows[0]["metric"]
    down, _ = layout(rows, ("label",), ("init",), chosen=False)
    panel_axes = tuple(axis for axis in down if axis != "label")
    rows = comparable.comparable(rows, results, panel_axes, choice.among)
    if comparable.only_label(rows) is not None and any(row["label"] != MACRO for row in rows):
        rows = [row for row in rows if row["label"] != MACRO]  # the mean of one label is that label again
    cells = gather(rows, panel_axes, ("label", "init"), options.allow)
    panels = _sorted({key for key, _ in cells}, panel_axes)
    labels = sorted({key[0] for _, key in cells}, key=lambda value: sort_key("label", value))
    inits = sorted({key[1] for _, key in cells}, key=lambda value: sort_key("init", value))
    _panel_count(panels)
    figure, axes = canvas(len(panels), width=4.2, height=0.7 + len(labels) * (0.14 * len(inits) + 0.12), across=2)
    thickness = 0.8 / len(inits)
    for axis, panel in zip(axes, panels, strict=True):
        for place, init in enumerate(inits):
            held = [(i, cells.get((panel, (label, init)))) for i, label in enumerate(labels)]
            bars = [(i, cell) for i, cell in held if cell is not None and cell.value is not None]
            ys = [i + (place - (len(inits) - 1) / 2) * thickness for i, _ in bars]
            axis.barh(
                ys,
                [cell.value or 0.0 for _, cell in bars],
                height=thickness * 0.9,
                color=COLOURS[place % 7],
                hatch=HATCHES[place % 7],
                edgecolor="white",
                linewidth=0.4,
                label=show("init", init),
            )
            for y, (_, cell) in zip(ys, bars, strict=True):
                if cell.low is not None and cell.high is not None:
                    style = (0, (1, 1)) if _alone(cell) else "solid"
                    axis.hlines(y, cell.low, cell.high, color="black", linewidth=0.9, linestyles=style)
        axis.set_yticks(range(len(labels)), [show("label", label) for label in labels])
        axis.invert_yaxis()
        axis.grid(visible=False, axis="y")
        axis.set_xlim(0.0, 1.0)
        if metric in ("auroc", "balanced_accuracy"):
            axis.axvline(0.5, color="#666666", linewidth=0.8, linestyle=":")
        axis.set_xlabel(METRIC_TITLES.get(metric, metric))
        axis.set_title(", ".join(show(a, v) for a, v in zip(panel_axes, panel, strict=True)))
    legend_below(figure, axes)
    shown = (*panel_axes, "init", "label")
    caption = caption_of("{metric} per pathology", rows, shown, list(cells.values()), "panel")
    parts = [f"{caption}{note} Lines are the intervals."]
    if any(_alone(cell) for cell in cells.values()):
        parts.append("Dotted: of one trained model, which leaves out the spread over seeds and is too narrow.")
    parts += setting_notes(rows, [cell.rows for cell in cells.values()], shown)
    return Drawing(name="per-class", figure=figure, caption=" ".join(parts))


def largest_fraction(rows: list[Row], options: Options) -> tuple[list[Row], str]:
    """The rows of the largest label fraction, and a sentence that says so, unless the user chose one."""
    fractions = {row["label_fraction"] for row in rows if row["label_fraction"] is not None}
    if len(fractions) < 2 or any(text.startswith("label_fraction=") for text in options.where):
        return rows, ""
    top = max(fractions)
    note = f" Only the largest share of labels ({show('label_fraction', top)}) is shown."
    return [row for row in rows if row["label_fraction"] == top], note


def _panel_count(panels: Sequence[Any]) -> int:
    if len(panels) > MAX_PANELS:
        raise InputError(f"that would be {len(panels)} panels; choose with --where (at most {MAX_PANELS})")
    return len(panels)


def _sorted(keys: set[tuple[Any, ...]], axes: Sequence[str]) -> list[tuple[Any, ...]]:
    return sorted(keys, key=lambda key: [sort_key(axis, value) for axis, value in zip(axes, key, strict=True)])
