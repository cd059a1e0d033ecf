"""Figures of scores against thresholds: confusion matrices, calibration, threshold sweep, from predictions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from results import stats
from results.errors import InputError
from results.metrics import expected_calibration_error
from results.options import Options
from results.scores import BAND_RESAMPLES, GRID, Material, Scores, material
from results.style import Drawing, canvas, legend_below, look


def _material(results: pa.Table, options: Options) -> Material:
    """As `material`, with at least one label to take together.

    Raises:
        InputError: no label is in every run.
    """
    data = material(results, options)
    if not data.shared:
        raise InputError("no label is in every run, so labels cannot be taken together; choose runs with --where")
    return data


def confusion(results: pa.Table, options: Options) -> Drawing:
    """Counts at the thresholds chosen on validation, one panel per series; all labels together, or one."""
    data = _material(results, options)
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
        axis.set(xlabel="Called", ylabel="Truth", title=series.name.replace(", ", ",\n"))
        axis.grid(visible=False)
    caption = (
        f"Confusion matrices at the thresholds chosen on validation; images (mean over seeds) and share of the row. "
        f"{data.pooling}{data.sentence}"
    )
    return Drawing(name="confusion", figure=figure, caption=caption)


def calibration(results: pa.Table, options: Options) -> Drawing:
    """Observed share of positives over the mean score in ten bins of equal width."""
    data = _material(results, options)
    figure, axes = canvas(1, width=4.2, height=3.4)
    axis = axes[0]
    axis.plot([0, 1], [0, 1], color="#666666", linewidth=0.8, linestyle=":")
    for place, series in enumerate(data.series):
        x, y, low, high = reliability(data.pooled(series))
        shifted = x + (place - (len(data.series) - 1) / 2) * 0.006
        errors = np.stack([np.maximum(y - low, 0), np.maximum(high - y, 0)])
        ece = float(np.mean([expected_calibration_error(run.truth, run.score) for run in data.pooled(series)]))
        axis.errorbar(shifted, y, yerr=errors, label=f"{series.name} (ECE {ece:.3f})", capsize=2, **look(place))
    axis.set(xlim=(0, 1), ylim=(-0.02, 1.02), xlabel="Mean score", ylabel="Share of positives")
    axis.set_box_aspect(1)
    legend_below(figure, axes)
    caption = (
        "Calibration in ten bins of equal width, 95 % intervals by bootstrap over test patients; ECE over 15 bins, "
        f"mean over labels and seeds. {data.pooling}{data.sentence} Dotted: perfect."
    )
    return Drawing(name="calibration", figure=figure, caption=caption)


def reliability(runs: Sequence[Scores], bins: int = 10) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean score, share of positives and its 95 % interval over patients, for each bin that holds images."""
    patients = max(int(run.patients.max()) for run in runs) + 1
    sums = np.zeros((3, patients, bins))
    for run in runs:
        place = (run.patients, np.minimum((run.score * bins).astype(int), bins - 1))
        for target, amount in zip(sums, (np.ones(len(run.score)), run.score, run.truth), strict=True):
            np.add.at(target, place, amount)
    images, score, positives = sums.sum(axis=1)
    held = images > 0
    counts = np.concatenate(list(stats.resample_counts(patients, BAND_RESAMPLES, 0))).astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = (counts @ sums[2])[:, held] / (counts @ sums[0])[:, held]
    low, high = np.nanquantile(shares, [0.025, 0.975], axis=0)
    return score[held] / images[held], positives[held] / images[held], low, high


def threshold_sweep(results: pa.Table, options: Options) -> Drawing:
    """Sensitivity, specificity, precision and F1 over the threshold, one panel per series."""
    data = _material(results, options)
    figure, axes = canvas(len(data.series), width=3.1, height=2.6)
    for axis, series in zip(axes, data.series, strict=True):
        runs = data.pooled(series)
        lines = _defined_mean(np.stack([sweep(run.truth, run.score) for run in runs]))
        for place, (name, line) in enumerate(
            zip(("Sensitivity", "Specificity", "Precision", "F1"), lines, strict=True)
        ):
            axis.plot(GRID, line, label=name, **look(place, mark=""))
        cuts = [run.threshold for run in runs if run.threshold is not None]
        for cut in cuts:
            axis.axvline(cut, color="#444444", linewidth=0.7, alpha=min(1.0, max(0.25, 2 / len(cuts))))
        axis.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="Threshold", title=series.name)
    legend_below(figure, axes)
    over = "labels and seeds" if len(data.shared) > 1 else "seeds"
    caption = (
        f"Metrics on test over the threshold, mean over {over}. Upright lines: thresholds chosen on validation. "
        f"{data.pooling}{data.sentence}"
    )
    return Drawing(name="threshold-sweep", figure=figure, caption=caption)


def sweep(truth: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Sensitivity, specificity, precision (NaN where nothing is called positive) and F1 at GRID, (4, 101)."""
    positive, negative = np.sort(score[truth]), np.sort(score[~truth])
    tp = len(positive) - np.searchsorted(positive, GRID)
    fp = len(negative) - np.searchsorted(negative, GRID)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = tp / (tp + fp)
    recall, specificity = tp / len(positive), 1 - fp / len(negative)
    return np.stack([recall, specificity, precision, 2 * tp / (tp + fp + len(positive))])


def _defined_mean(stack: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is not NaN; NaN where nothing is."""
    defined = np.isfinite(stack)
    with np.errstate(invalid="ignore"):
        return np.where(defined, stack, 0.0).sum(axis=0) / defined.sum(axis=0)
