"""ROC and precision-recall curves, from predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from results import stats
from results.captions import interval_sentence
from results.errors import InputError
from results.grids import MAX_PANELS
from results.names import METRIC_TITLES, show
from results.options import Options
from results.scores import BAND_RESAMPLES, GRID, Scores, Series, material
from results.style import COLOURS, Drawing, canvas, look


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
    metric = "auroc" if name == "roc" else "auprc"
    data = material(results, options, metric)
    if len(data.labels) > MAX_PANELS:
        raise InputError(f"{len(data.labels)} labels are too many panels; choose with --label")
    figure, axes = canvas(len(data.labels), width=2.9, height=2.65)
    for axis, label in zip(axes, data.labels, strict=True):
        for place, series in enumerate(data.series):
            if label not in series.runs:
                continue
            mean, low, high = with_band(series.runs[label], curve)
            axis.plot(GRID, mean, label=_legend(series, label), **look(place, mark=""))
            axis.fill_between(GRID, low, high, color=COLOURS[place], alpha=0.15, linewidth=0)
        if name == "roc":
            axis.plot([0, 1], [0, 1], color="#666666", linewidth=0.8, linestyle=":")
        else:
            run = next(series.runs[label][0] for series in data.series if label in series.runs)
            axis.axhline(float(run.truth.mean()), color="#666666", linewidth=0.8, linestyle=":")
        axis.set(xlim=(0, 1), ylim=(0, 1.02), xlabel=titles[0], ylabel=titles[1], title=show("label", label))
        axis.set_box_aspect(1)
        axis.legend(loc="lower right" if name == "roc" else "best", fontsize=6.5, framealpha=0.7, frameon=True)
    cells = [cell for series in data.series for cell in series.cells.values()]
    what = "ROC curves" if name == "roc" else "Precision-recall curves"
    caption = (
        f"{what}, mean over seeds with 95 % bands by bootstrap over test patients ({BAND_RESAMPLES} resamples). "
        f"Legends: {METRIC_TITLES[metric]}. {interval_sentence(cells)} {data.sentence} Dotted: chance."
    )
    return Drawing(name=name, figure=figure, caption=caption)


def _legend(series: Series, label: str) -> str:
    """Name, value and interval of a line."""
    cell = series.cells[label]
    if cell.value is None:
        return series.name
    interval = "" if cell.low is None or cell.high is None else f" [{cell.low:.2f}, {cell.high:.2f}]"
    return f"{series.name} {cell.value:.2f}{interval}"
