"""ROC and precision-recall curves, from predictions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from results.cells.captions import interval_sentence
from results.cells.cell import Cell
from results.cells.display import METRIC_TITLES, show
from results.cells.options import Options
from results.errors import InputError
from results.figures.bands import Carriers, Curve, band
from results.figures.grids import MAX_PANELS
from results.figures.scores import GRID, Scores, Series, material
from results.figures.style import COLOURS, Drawing, canvas, look
from results.stats.effects import TOO_FEW
from results.stats.influence import MIN_CLASS_PATIENTS
from results.tables.render import FEW_MARK


def roc(results: pa.Table, options: Options) -> Drawing:
    """True over false positive rate, one panel per label."""
    return _curve_panels(
        "roc", results, options, (roc_curve, _positives), ("False positive rate", "True positive rate")
    )


def precision_recall(results: pa.Table, options: Options) -> Drawing:
    """Precision over recall, one panel per label."""
    how = (precision_recall_curve, _called)
    return _curve_panels("precision-recall", results, options, how, ("Recall", "Precision"))


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
        lines.append(y[_reached(x)] if np.isfinite(x[-1]) else np.full(101, np.nan))
    return np.stack(lines)


def _reached(recall: np.ndarray) -> np.ndarray:
    """Places among the thresholds, highest first, whose recall (K,) is the first to reach each of GRID, (101,)."""
    return np.minimum(np.searchsorted(recall, np.maximum(GRID, 1e-9) - 1e-12), len(recall) - 1)


def _cumulative(truth: np.ndarray, score: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """True and false positives at every distinct threshold, highest first, each (b, K)."""
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    ranked = weights[:, order].astype(np.float64)
    hits = np.cumsum(ranked * truth[order], axis=1)[:, last]
    return hits, np.cumsum(ranked, axis=1)[:, last] - hits


def _positives(run: Scores) -> tuple[np.ndarray, np.ndarray]:
    """A true positive rate is a share of the positives; at a false positive rate of 1 it is 1, whoever is tested."""
    counts = (int(run.truth.sum()), len(np.unique(run.patients[run.truth])))
    images, patients = (np.append(np.full(len(GRID) - 1, float(count)), _EVERYBODY) for count in counts)
    return images, patients


_EVERYBODY = 1e15
"""Patients behind a value that no sample can change."""


def _called(run: Scores) -> tuple[np.ndarray, np.ndarray]:
    """A precision is a share of what is called positive, at the threshold that reaches the recall.

    NaN where that threshold finds positives of fewer patients than an interval needs: the first positive of a ranking
    may be its first image by luck.
    """
    order = np.argsort(-run.score, kind="stable")
    hits, misses = _cumulative(run.truth, run.score, np.ones((1, len(run.truth)), np.int32))
    called = (hits + misses)[0].astype(int)
    place = called[_reached(hits[0] / hits[0, -1])] - 1
    ranked, truth = run.patients[order], run.truth[order]
    found, met = _met(ranked, truth)[place], _met(ranked, np.ones(len(order), bool))[place]
    return place + 1.0, np.where(found < MIN_CLASS_PATIENTS, np.nan, met)


def _met(patients: np.ndarray, among: np.ndarray) -> np.ndarray:
    """How many different patients the images `among` (bool) up to each place are of, (N,)."""
    first, chosen = np.zeros(len(patients)), np.flatnonzero(among)
    first[chosen[np.unique(patients[chosen], return_index=True)[1]]] = 1
    return first.cumsum()


def _curve_panels(
    name: str, results: pa.Table, options: Options, how: tuple[Curve, Carriers], titles: tuple[str, str]
) -> Drawing:
    metric = "auroc" if name == "roc" else "auprc"
    data = material(results, options, metric)
    if len(data.labels) > MAX_PANELS:
        raise InputError(f"{len(data.labels)} labels are too many panels; choose with --label")
    figure, axes = canvas(len(data.labels), width=2.9, height=2.65)
    for axis, label in zip(axes, data.labels, strict=True):
        for place, series in enumerate(data.series):
            if label not in series.runs:
                continue
            found = band(series.runs[label], *how)
            axis.plot(GRID, found.value, label=_legend(series, label), **look(place, mark=""))
            axis.fill_between(GRID, found.low, found.high, color=COLOURS[place], alpha=0.15, linewidth=0)
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
        f"{what}, mean over seeds with 95 % bands, point by point. Legends: {METRIC_TITLES[metric]}. "
        f"{interval_sentence(cells)} Bands are intervals of the same kind{_from(name)}.{_few(cells)} {data.sentence} "
        "Dotted: chance."
    )
    return Drawing(name=name, figure=figure, caption=caption)


def _legend(series: Series, label: str) -> str:
    """Name, value and interval of a line."""
    cell = series.cells[label]
    if cell.value is None:
        return series.name
    mark = FEW_MARK if cell.few else ""
    interval = mark if cell.low is None or cell.high is None else f" [{cell.low:.2f}, {cell.high:.2f}]"
    return f"{series.name} {cell.value:.2f}{interval}"


def _from(name: str) -> str:
    """For a caption: where bands begin."""
    return f", from {MIN_CLASS_PATIENTS} found patients on" if name == "precision-recall" else ""


def _few(cells: Sequence[Cell]) -> str:
    """For a caption: why some lines have neither band nor interval."""
    return f" {FEW_MARK} No band and no interval: {TOO_FEW}." if any(cell.few for cell in cells) else ""
