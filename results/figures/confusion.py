"""`confusion`: confusion matrices at the chosen thresholds, from predictions."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from results.cells.options import Options
from results.errors import InputError
from results.figures.scores import pooled_data
from results.figures.style import Drawing, canvas

PER_TEST_SET = True
"""A report draws it once for each test set."""


def draw(results: pa.Table, options: Options) -> Drawing:
    """Counts at the thresholds chosen on validation, one panel per series; all labels together, or one."""
    data = pooled_data(results, options)
    tall = max(series.name.count(", ") for series in data.series)  # titles of several lines
    figure, axes = canvas(len(data.series), width=2.4, height=2.2 + 0.15 * tall, across=4)
    for axis, series in zip(axes, data.series, strict=True):
        runs = [run for run in data.pooled(series) if run.threshold is not None]
        if not runs:
            raise InputError(f"{series.name}: no threshold was chosen on validation")
        seeds = max(len(series.runs[label]) for label in data.shared)
        counts = np.zeros((2, 2))
        for run in runs:
            called = run.score >= float(run.threshold or 0.0)
            np.add.at(counts, (run.truth.astype(int), called.astype(int)), 1 / seeds)
        share = counts / counts.sum(axis=1, keepdims=True)
        axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for row in range(2):
            for column in range(2):
                number = counts[row, column]
                text = f"{number:.0f}" if abs(number - round(number)) < 1e-6 else f"{number:.1f}"
                colour = "white" if share[row, column] > 0.55 else "black"
                text = f"{text}\n{100 * share[row, column]:.1f} %"
                axis.text(column, row, text, ha="center", va="center", color=colour)
        axis.set_xticks([0, 1], ["negative", "positive"])
        axis.set_yticks([0, 1], ["negative", "positive"], rotation=90, va="center")
        axis.set(xlabel="Predicted", ylabel="True", title=series.name.replace(", ", ",\n"))
        axis.grid(visible=False)
    caption = (
        f"Confusion matrices; {data.unit} (mean over seeds) and share of the row."
        f" {data.rule} {data.pooling}{data.sentence}"
    )
    return Drawing(figure=figure, caption=caption)
