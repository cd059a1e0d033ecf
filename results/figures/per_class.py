"""`per-class`: bars of a metric per pathology."""

from __future__ import annotations

import pyarrow as pa

from results.cells import comparable
from results.cells.captions import caption_of, setting_notes
from results.cells.cell import gather
from results.cells.display import METRIC_TITLES, show, sort_key, sorted_keys
from results.cells.options import Options
from results.cells.select import RowChoice, choose, largest_fraction, layout
from results.figures.panels import is_one_seed, panel_count
from results.figures.style import Drawing, canvas, colour, hatch, legend_below, series_count
from results.schema import MACRO

PER_TEST_SET = True
"""A report draws it once for each test set."""


def draw(results: pa.Table, options: Options) -> Drawing:
    """Bars per pathology, one per initialisation, with intervals."""
    choice = RowChoice.of(options, ("auroc",), None)
    rows, note = largest_fraction(choose(results, choice), options)
    metric = rows[0]["metric"]
    down, _ = layout(rows, ("label",), ("init",), chosen=False)
    panel_axes = tuple(axis for axis in down if axis != "label")
    rows = comparable.with_common_labels(rows, results, panel_axes, choice.among)
    if comparable.only_label(rows) is not None and any(row["label"] != MACRO for row in rows):
        rows = [row for row in rows if row["label"] != MACRO]  # the mean of one label is that label again
    cells = gather(rows, panel_axes, ("label", "init"), options.allow)
    panels = sorted_keys({key for key, _ in cells}, panel_axes)
    labels = sorted({key[0] for _, key in cells}, key=lambda value: sort_key("label", value))
    inits = sorted({key[1] for _, key in cells}, key=lambda value: sort_key("init", value))
    panel_count(panels)
    series_count(inits, "init")
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
                color=colour(place),
                hatch=hatch(place),
                edgecolor="white",
                linewidth=0.4,
                label=show("init", init),
            )
            for y, (_, cell) in zip(ys, bars, strict=True):
                if cell.low is not None and cell.high is not None:
                    style = (0, (1, 1)) if is_one_seed(cell) else "solid"
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
    if any(is_one_seed(cell) for cell in cells.values()):
        parts.append("Dotted: of one trained model, which leaves out the spread over seeds and is too narrow.")
    parts += setting_notes(rows, [cell.rows for cell in cells.values()], shown)
    return Drawing(figure=figure, caption=" ".join(parts))
