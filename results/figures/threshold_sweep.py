"""`threshold-sweep`: metrics over the threshold, from predictions."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from results.cells.options import Options
from results.figures.scores import GRID, pooled_data
from results.figures.style import Drawing, canvas, legend_below, line_style

PER_TEST_SET = True
"""A report draws it once for each test set."""


def draw(results: pa.Table, options: Options) -> Drawing:
    """Sensitivity, specificity, their mean, precision and F1 over the threshold, one panel per series."""
    data = pooled_data(results, options)
    figure, axes = canvas(len(data.series), width=3.1, height=2.6)
    for axis, series in zip(axes, data.series, strict=True):
        runs = data.pooled(series)
        lines = _defined_mean(np.stack([sweep(run.truth, run.score) for run in runs]))
        for place, (name, line) in enumerate(zip(LINES, lines, strict=True)):
            axis.plot(GRID, line, label=name, **line_style(place, mark=""))
        cuts = [run.threshold for run in runs if run.threshold is not None]
        for cut in cuts:
            axis.axvline(cut, color="#444444", linewidth=0.7, alpha=min(1.0, max(0.25, 2 / len(cuts))))
        axis.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="Threshold", title=series.name)
    legend_below(figure, axes)
    over = "labels and seeds" if len(data.shared) > 1 else "seeds"
    caption = (
        f"Metrics on test over the threshold, mean over {over}. Vertical lines: the chosen thresholds. {data.rule} "
        f"{data.pooling}{data.sentence}"
    )
    return Drawing(figure=figure, caption=caption)


LINES = ("Sensitivity", "Specificity", "Balanced accuracy", "Precision", "F1")
"""What `sweep` gives, in its order."""


def sweep(truth: np.ndarray, score: np.ndarray) -> np.ndarray:
    """The metrics of LINES at GRID, (5, 101); precision is NaN where nothing is called positive."""
    positive, negative = np.sort(score[truth]), np.sort(score[~truth])
    tp = len(positive) - np.searchsorted(positive, GRID)
    fp = len(negative) - np.searchsorted(negative, GRID)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = tp / (tp + fp)
    recall, specificity = tp / len(positive), 1 - fp / len(negative)
    f1 = 2 * tp / (tp + fp + len(positive))
    return np.stack([recall, specificity, (recall + specificity) / 2, precision, f1])


def _defined_mean(stack: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is not NaN; NaN where nothing is."""
    defined = np.isfinite(stack)
    with np.errstate(invalid="ignore"):
        return np.where(defined, stack, 0.0).sum(axis=0) / defined.sum(axis=0)
