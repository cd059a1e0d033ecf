"""Figures of the scores: ROC, precision-recall, confusion, calibration, threshold sweep, from predictions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from results import stats
from results.captions import data_sentence
from results.compare import load_panel
from results.errors import InputError
from results.grids import MAX_PANELS, largest_fraction
from results.metrics import expected_calibration_error
from results.names import AXES, count, listing, show, sort_key
from results.options import Options
from results.schema import MACRO
from results.select import Choice, Row, choose
from results.style import COLOURS, Drawing, canvas, legend_below, look

BAND_RESAMPLES = 200
"""Resamples of patients behind a band."""

GRID = np.linspace(0, 1, 101)
"""Where curves are evaluated, so that seeds and resamples can be averaged."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores:
    """One run's scores for one label on its test set."""

    truth: np.ndarray
    """bool (N,)."""
    score: np.ndarray
    """(N,)."""
    patients: np.ndarray
    """(N,) codes, the same for all runs of one test set."""
    threshold: float | None
    """Chosen on validation."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Series:
    """The runs behind one line."""

    name: str
    """What the legend calls it."""
    runs: dict[str, list[Scores]]
    """label -> one entry per seed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Material:
    """Everything a score figure draws from."""

    series: list[Series]
    labels: list[str]
    sentence: str
    """Data, seeds and choices, for the caption."""


def material(results: pa.Table, options: Options) -> Material:
    """Load the predictions behind the chosen results.

    Raises:
        InputError: predictions are gone, or several test sets are left.
    """
    labels = (options.label,) if options.label and options.label != MACRO else None
    rows = choose(results, Choice(metrics=("accuracy",), labels=labels, where=options.where, allow=options.allow))
    rows = [row for row in rows if row["label"] != MACRO and row["n_pos"] and row["n_neg"]]
    if not rows:
        raise InputError("no label has positives and negatives in the test set")
    sets = sorted({str(row["test_dataset"]) for row in rows})
    if len(sets) > 1:
        raise InputError(
            f"results on {len(sets)} test sets ({', '.join(sets)}); choose with --where test_dataset={sets[0]}"
        )
    rows, note = largest_fraction(rows, options)
    axes = [axis for axis in AXES if axis not in ("label", "metric") and len({row[axis] for row in rows}) > 1]
    if "init" in axes and "pretrain_dataset" in axes:
        axes.remove("pretrain_dataset")
    axes = axes or ["init"]
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[axis] for axis in axes), []).append(row)
    keys = sorted(groups, key=lambda key: [sort_key(axis, value) for axis, value in zip(axes, key, strict=True)])
    if len(keys) > len(COLOURS):
        raise InputError(
            f"{len(keys)} lines cannot be told apart; choose with --where (they differ in {', '.join(axes)})"
        )
    series = [
        Series(name=", ".join(show(a, v) for a, v in zip(axes, key, strict=True)), runs=_runs(groups[key]))
        for key in keys
    ]
    seeds = sorted({len(runs) for one in series for runs in one.runs.values()})
    words = count(seeds[0], "seed") if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds"
    return Material(
        series=series,
        labels=sorted({row["label"] for row in rows}),
        sentence=f"{data_sentence(rows)} {words[:1].upper()}{words[1:]} per line.{note}",
    )


def _runs(rows: Sequence[Row]) -> dict[str, list[Scores]]:
    out: dict[str, list[Scores]] = {}
    for row in sorted(rows, key=lambda row: (row["seed"] is None, row["seed"] or 0)):
        panel = load_panel(str(row["source"]), str(row["test_dataset"]))
        if isinstance(panel, str):
            raise InputError(f"{panel} beside {row['source']}; this figure is drawn from predictions")
        truth, score, patients = panel.column(row["label"])
        out.setdefault(row["label"], []).append(
            Scores(truth=truth, score=score, patients=patients, threshold=row["threshold"])
        )
    return out


def roc(results: pa.Table, options: Options) -> Drawing:
    """True over false positive rate, one panel per label."""
    return _curve_panels("roc", results, options, roc_curve, ("False positive rate", "True positive rate"))


def precision_recall(results: pa.Table, options: Options) -> Drawing:
    """Precision over recall, one panel per label."""
    return _curve_panels("precision-recall", results, options, precision_recall_curve, ("Recall", "Precision"))


def roc_curve(truth: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """True positive rate at the false positive rates of GRID, (b, 101); weights (b, N); NaN if a class is gone."""
    hits, misses = _cumulative(truth, score, weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        tpr, fpr = hits / hits[:, -1:], misses / misses[:, -1:]
    start = np.zeros(1)
    return np.stack(
        [
            np.interp(GRID, np.append(start, x), np.append(start, y))
            if np.isfinite(x[-1] + y[-1])
            else np.full(101, np.nan)
            for x, y in zip(fpr, tpr, strict=True)
        ]
    )


def precision_recall_curve(truth: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Precision at the highest threshold that reaches each recall of GRID, (b, 101); NaN without positives."""
    hits, misses = _cumulative(truth, score, weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, recall = hits / (hits + misses), hits / hits[:, -1:]
    lines = []
    for x, y in zip(recall, precision, strict=True):
        place = np.minimum(np.searchsorted(x, np.maximum(GRID, 1e-9) - 1e-12), len(x) - 1)
        lines.append(y[place] if np.isfinite(x[-1]) else np.full(101, np.nan))
    return np.stack(lines)


def _cumulative(truth: np.ndarray, score: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """True and false positives at every distinct threshold, highest first, each (b, K)."""
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    ranked = weights[:, order].astype(np.float64)
    hits = np.cumsum(ranked * truth[order], axis=1)[:, last]
    return hits, np.cumsum(ranked, axis=1)[:, last] - hits


Curve = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def with_band(runs: Sequence[Scores], curve: Curve) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean curve over seeds, and its 95 % band over patients (all seeds see the same resample), each (101,)."""
    ones = [curve(run.truth, run.score, np.ones((1, len(run.truth)), np.int32))[0] for run in runs]
    resampled = np.zeros((BAND_RESAMPLES, len(GRID)))
    for run in runs:
        blocks = [
            curve(run.truth, run.score, counts[:, run.patients])
            for counts in stats.resample_counts(int(run.patients.max()) + 1, BAND_RESAMPLES, 0, len(run.patients))
        ]
        resampled += np.concatenate(blocks) / len(runs)
    defined = resampled[np.isfinite(resampled).all(axis=1)]
    if len(defined) * 2 <= len(resampled):
        return np.mean(ones, axis=0), np.full(len(GRID), np.nan), np.full(len(GRID), np.nan)
    low, high = np.quantile(defined, [0.025, 0.975], axis=0)
    return np.mean(ones, axis=0), low, high


def _curve_panels(name: str, results: pa.Table, options: Options, curve: Curve, titles: tuple[str, str]) -> Drawing:
    data = material(results, options)
    if len(data.labels) > MAX_PANELS:
        raise InputError(f"{len(data.labels)} labels are too many panels; choose with --label")
    figure, axes = canvas(len(data.labels), width=2.9, height=3.0)
    for axis, label in zip(axes, data.labels, strict=True):
        for place, series in enumerate(data.series):
            if label not in series.runs:
                continue
            mean, low, high = with_band(series.runs[label], curve)
            axis.plot(GRID, mean, label=series.name, **look(place, mark=""))
            axis.fill_between(GRID, low, high, color=COLOURS[place], alpha=0.15, linewidth=0)
        if name == "roc":
            axis.plot([0, 1], [0, 1], color="#666666", linewidth=0.8, linestyle=":")
        else:
            run = next(series.runs[label][0] for series in data.series if label in series.runs)
            axis.axhline(float(run.truth.mean()), color="#666666", linewidth=0.8, linestyle=":")
        axis.set(xlim=(0, 1), ylim=(0, 1.02), xlabel=titles[0], ylabel=titles[1], title=show("label", label))
        axis.set_box_aspect(1)
    legend_below(figure, axes)
    what = "ROC curves" if name == "roc" else "Precision-recall curves"
    caption = (
        f"{what}, mean over seeds with 95 % bands by bootstrap over test patients ({BAND_RESAMPLES} resamples). "
        f"{data.sentence} Dotted: chance."
    )
    return Drawing(name=name, figure=figure, caption=caption)


def _pooled(series: Series) -> list[Scores]:
    """All labels of a series one after another."""
    return [run for runs in series.runs.values() for run in runs]


def _labels_sentence(data: Material) -> str:
    return (
        f"Labels taken together: {listing([show('label', label) for label in data.labels])}. "
        if len(data.labels) > 1
        else ""
    )


def confusion(results: pa.Table, options: Options) -> Drawing:
    """Counts at the thresholds chosen on validation, one panel per series; all labels together, or one."""
    data = material(results, options)
    figure, axes = canvas(len(data.series), width=2.4, height=2.2, across=4)
    for axis, series in zip(axes, data.series, strict=True):
        runs = [run for run in _pooled(series) if run.threshold is not None]
        if not runs:
            raise InputError(f"{series.name}: no threshold was chosen on validation")
        seeds = max(len(held) for held in series.runs.values())
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
        axis.set(xlabel="Called", ylabel="Truth", title=series.name)
        axis.grid(visible=False)
    caption = (
        f"Confusion matrices at the thresholds chosen on validation; images (mean over seeds) and share of the row. "
        f"{_labels_sentence(data)}{data.sentence}"
    )
    return Drawing(name="confusion", figure=figure, caption=caption)


def calibration(results: pa.Table, options: Options) -> Drawing:
    """Observed share of positives over the mean score in ten bins of equal width."""
    data = material(results, options)
    figure, axes = canvas(1, width=4.2, height=3.4)
    axis = axes[0]
    axis.plot([0, 1], [0, 1], color="#666666", linewidth=0.8, linestyle=":")
    for place, series in enumerate(data.series):
        x, y, low, high = reliability(_pooled(series))
        shifted = x + (place - (len(data.series) - 1) / 2) * 0.006
        errors = np.stack([np.maximum(y - low, 0), np.maximum(high - y, 0)])
        ece = float(np.mean([expected_calibration_error(run.truth, run.score) for run in _pooled(series)]))
        axis.errorbar(shifted, y, yerr=errors, label=f"{series.name} (ECE {ece:.3f})", capsize=2, **look(place))
    axis.set(xlim=(0, 1), ylim=(-0.02, 1.02), xlabel="Mean score", ylabel="Share of positives")
    axis.set_box_aspect(1)
    legend_below(figure, axes)
    caption = (
        "Calibration in ten bins of equal width, 95 % intervals by bootstrap over test patients; ECE over 15 bins, "
        f"mean over labels and seeds. {_labels_sentence(data)}{data.sentence} Dotted: perfect."
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
    data = material(results, options)
    figure, axes = canvas(len(data.series), width=3.1, height=2.6)
    for axis, series in zip(axes, data.series, strict=True):
        runs = _pooled(series)
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
    over = "labels and seeds" if len(data.labels) > 1 else "seeds"
    caption = (
        f"Metrics on test over the threshold, mean over {over}. Upright lines: thresholds chosen on validation. "
        f"{_labels_sentence(data)}{data.sentence}"
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
