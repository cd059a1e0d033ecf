"""The scores behind figures: which runs make a line, on which labels, read from their predictions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from results import levels
from results.cells.captions import data_sentence, setting_notes, threshold_sentence
from results.cells.cell import Cell, gather
from results.cells.comparable import on_all
from results.cells.display import show, sort_key
from results.cells.options import Options
from results.cells.select import RowChoice, choose, largest_fraction, make_axes, varying
from results.errors import InputError
from results.figures.style import COLOURS
from results.schema import MACRO, Row
from results.stats.predictions import ScoreMatrix, load_scores
from results.stats.recalibrate import recalibrated_scores
from results.wording import count, listing

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
    cells: dict[str, Cell]
    """label -> the figure's metric over those runs, as a table has it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FigureData:
    """Everything a score figure draws from."""

    series: list[Series]
    labels: list[str]
    shared: list[str]
    """Those of the labels that every run has; figures that take labels together use these alone."""
    sentence: str
    """Data, seeds and choices, for the caption."""
    rule: str
    """By which rule thresholds were chosen, for the caption; empty where the metric has none."""
    unit: str = "images"
    """What a score is of: images or studies."""

    def pooled(self, series: Series) -> list[Scores]:
        """The shared labels of a series, one after another."""
        return [run for label in self.shared for run in series.runs[label]]

    @property
    def pooling(self) -> str:
        """For a caption: which labels were taken together, and which were left out for not being in every run."""
        if len(self.labels) < 2:
            return ""
        gone = [show("label", label) for label in self.labels if label not in self.shared]
        left = f", which every run has (left out: {listing(gone)})" if gone else ""
        return f"Labels taken together: {listing([show('label', label) for label in self.shared])}{left}. "


def figure_data(results: pa.Table, options: Options, metric: str = "accuracy") -> FigureData:
    """Load the predictions behind the chosen results.

    Args:
        results: collected results.
        options: what the user asked for; `columns` name axes or configuration keys that lines stand for.
        metric: whose rows are taken, and whose values the series carry.

    Raises:
        InputError: predictions are gone, several test sets are left, or a line's runs differ in more than their seed.
    """
    if options.label == MACRO:
        options = dataclasses.replace(options, label=None)
    rows = choose(results, RowChoice.of(dataclasses.replace(options, metric=metric), (metric,), None))
    rows = [row for row in rows if row["label"] != MACRO and row["n_pos"] and row["n_neg"]]
    if not rows:
        raise InputError("no label has positives and negatives in the test set")
    sets = sorted({str(row["test_dataset"]) for row in rows})
    if len(sets) > 1:
        raise InputError(
            f"results on {len(sets)} test sets ({', '.join(sets)}); choose with --where test_dataset={sets[0]}"
        )
    rows, note = largest_fraction(rows, options)
    make_axes(rows, options.columns)
    axes = [*options.columns, *varying(rows, (*options.columns, "label", "metric"))]
    if "init" in axes and "pretrain_dataset" in axes:
        axes.remove("pretrain_dataset")
    axes = axes or ["init"]
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[axis] for axis in axes), []).append(row)
    keys = sorted(groups, key=lambda key: [sort_key(axis, value) for axis, value in zip(axes, key, strict=True)])
    if len(keys) > len(COLOURS):
        raise InputError(
            f"{len(keys)} lines are too many to distinguish; choose with --where (they differ in {', '.join(axes)})"
        )
    series = [
        Series(
            name=", ".join(show(a, v) for a, v in zip(axes, key, strict=True)),
            cells={label: cell for (_, (label,)), cell in gather(groups[key], (), ("label",), options.allow).items()},
            runs=_runs(groups[key], options.recalibrate),
        )
        for key in keys
    ]
    seeds = sorted({len(runs) for one in series for runs in one.runs.values()})
    words = count(seeds[0], "seed") if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds"
    labels = sorted({row["label"] for row in rows})
    shared = {row["label"] for row in on_all(rows)}
    more = setting_notes(rows, [cell.rows for one in series for cell in one.cells.values()], axes)
    return FigureData(
        series=series,
        labels=labels,
        shared=[label for label in labels if label in shared],
        sentence=" ".join([f"{data_sentence(rows)} {words[:1].upper()}{words[1:]} per line.{note}", *more]),
        rule=threshold_sentence(rows),
        unit=levels.unit(rows),
    )


def _runs(rows: Sequence[Row], recalibrate: str | None) -> dict[str, list[Scores]]:
    out: dict[str, list[Scores]] = {}
    matrices: dict[str, ScoreMatrix | str] = {}
    for row in sorted(rows, key=lambda row: (row["seed"] is None, row["seed"] or 0)):
        source = str(row["source"])
        if source not in matrices:
            matrices[source] = load_scores(source, str(row["test_dataset"]), row["test_dataset_hash"], levels.of(row))
            if recalibrate and isinstance(matrices[source], ScoreMatrix):
                matrices[source] = _recalibrated(row, matrices[source], recalibrate)
        matrix = matrices[source]
        if isinstance(matrix, str):
            raise InputError(f"{matrix} beside {source}; this figure is drawn from predictions")
        if recalibrate and row["label"] not in matrix.labels:
            raise InputError(
                f"{source}: validation has no images with and without {row['label']} to recalibrate on; choose other"
                " labels with --labels"
            )
        truth, score, patients = matrix.column(row["label"])
        out.setdefault(row["label"], []).append(
            Scores(truth=truth, score=score, patients=patients, threshold=row["threshold"])
        )
    return out


def _recalibrated(row: Row, matrix: ScoreMatrix | str, method: str) -> ScoreMatrix | str:
    """A run's scores recalibrated on validation, or why they cannot be."""
    assert isinstance(matrix, ScoreMatrix)
    found = recalibrated_scores(row, matrix, method)
    return "no validation predictions to recalibrate on" if found is None else found


def pooled_data(results: pa.Table, options: Options) -> FigureData:
    """As `figure_data`, with at least one label to take together.

    Raises:
        InputError: no label is in every run.
    """
    data = figure_data(results, options)
    if not data.shared:
        raise InputError("no label is in every run, so labels cannot be taken together; choose runs with --where")
    return data
