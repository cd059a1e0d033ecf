"""`confusion`: confusion matrices at the chosen thresholds, from predictions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from results.cells.display import show
from results.cells.options import Options
from results.errors import InputError
from results.figures.scores import FigureData, Scores, pooled_data
from results.figures.style import Drawing, canvas

PER_TEST_SET = True
"""A report draws it once for each test set."""


def draw(results: pa.Table, options: Options) -> Drawing:
    """Counts at the thresholds chosen on validation, one panel per series; all labels together, or one."""
    data = _with_thresholds(pooled_data(results, options))
    names = _class_names(data.shared)
    tall = max(series.name.count(", ") for series in data.series)  # titles of several lines
    figure, axes = canvas(len(data.series), width=2.4, height=2.2 + 0.15 * tall, across=4)
    for axis, series in zip(axes, data.series, strict=True):
        counts = sum((mean_counts(series.runs[label]) for label in data.shared), np.zeros((2, 2)))
        share = counts / counts.sum(axis=1, keepdims=True)
        axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for row in range(2):
            for column in range(2):
                number = counts[row, column]
                text = f"{number:.0f}" if abs(number - round(number)) < 1e-6 else f"{number:.1f}"
                colour = "white" if share[row, column] > 0.55 else "black"
                text = f"{text}\n{100 * share[row, column]:.1f} %"
                axis.text(column, row, text, ha="center", va="center", color=colour)
        axis.set_xticks([0, 1], names)
        axis.set_yticks([0, 1], names, rotation=90, va="center")
        axis.set(xlabel="Predicted", ylabel="True", title=series.name.replace(", ", ",\n"))
        axis.grid(visible=False)
    caption = (
        f"Confusion matrices; {data.unit} (mean over seeds) and share of the row."
        f" {data.rule} {data.pooling}{data.sentence}"
    )
    return Drawing(figure=figure, caption=caption)


def mean_counts(runs: Sequence[Scores]) -> np.ndarray:
    """Images by truth (rows) and call (columns), negative first: (2, 2), the mean over the runs with a threshold."""
    held = [run for run in runs if run.threshold is not None]
    counts = np.zeros((2, 2))
    for run in held:
        called = run.score >= float(run.threshold or 0.0)
        np.add.at(counts, (run.truth.astype(int), called.astype(int)), 1 / len(held))
    return counts


def _with_thresholds(data: FigureData) -> FigureData:
    """The data with those shared labels alone for which every series has a threshold, so that panels compare.

    Raises:
        InputError: there is none.
    """
    kept = [
        label
        for label in data.shared
        if all(any(run.threshold is not None for run in series.runs[label]) for series in data.series)
    ]
    if not kept:
        raise InputError(
            "no label has a threshold chosen on validation in every series; choose with --where or --label"
        )
    return dataclasses.replace(data, shared=kept)


def _class_names(labels: Sequence[str]) -> list[str]:
    """What the two classes are called: of one label by its name."""
    if len(labels) > 1:
        return ["negative", "positive"]
    name = show("label", labels[0])
    return [f"No {name[:1].lower()}{name[1:]}", name]
