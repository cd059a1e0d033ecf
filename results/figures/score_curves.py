"""Curves of scores with bands over patients: what `roc` and `precision-recall` share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from results.cells.captions import interval_sentence
from results.cells.cell import Cell
from results.cells.display import FEW_MARK, METRIC_TITLES, show
from results.cells.options import Options
from results.errors import InputError
from results.figures.bands import Carriers, Curve, band
from results.figures.panels import MAX_PANELS
from results.figures.scores import GRID, Series, figure_data
from results.figures.style import Drawing, canvas, colour, line_style, wrapped
from results.stats.effects import TOO_FEW


@dataclasses.dataclass(frozen=True, kw_only=True)
class CurveKind:
    """What tells one figure of curves from another."""

    title: str
    """Start of the caption."""
    metric: str
    """Whose values the legends carry."""
    curve: Curve
    carriers: Carriers
    axes: tuple[str, str]
    """Titles of the horizontal and the vertical axis."""
    chance: Callable[[Axes, float], object]
    """Draws the line of guessing into a panel, given the share of positives."""
    begin: str = ""
    """For the caption: where bands begin."""


_PANEL = 2.9  # inches
_SMALL = 6.5  # points


def curve_panels(results: pa.Table, options: Options, kind: CurveKind) -> Drawing:
    """One panel per label, one line per series, with bands.

    Raises:
        InputError: as `figure_data`, or too many labels.
    """
    data = figure_data(results, options, kind.metric)
    if len(data.labels) > MAX_PANELS:
        raise InputError(f"{len(data.labels)} labels are too many panels; choose with --label")
    entries = {
        (series.name, label): wrapped(_legend(series, label), _PANEL, _SMALL)
        for series in data.series
        for label in series.runs
    }
    lines = max(
        sum(entries[series.name, label].count("\n") + 1 for series in data.series if label in series.runs)
        for label in data.labels
    )
    figure, axes = canvas(len(data.labels), width=_PANEL, height=2.65 + 0.14 * lines)
    for axis, label in zip(axes, data.labels, strict=True):
        for place, series in enumerate(data.series):
            if label not in series.runs:
                continue
            found = band(series.runs[label], kind.curve, kind.carriers)
            axis.plot(GRID, found.value, label=entries[series.name, label], **line_style(place, mark=""))
            axis.fill_between(GRID, found.low, found.high, color=colour(place), alpha=0.15, linewidth=0)
        run = next(series.runs[label][0] for series in data.series if label in series.runs)
        kind.chance(axis, float(run.truth.mean()))
        axis.set(xlim=(0, 1), ylim=(0, 1.02), xlabel=kind.axes[0], ylabel=kind.axes[1], title=show("label", label))
        axis.set_box_aspect(1)
        # below the panel, for values as long as these would cover its lines and ticks
        title = METRIC_TITLES[kind.metric]
        anchor = (0.5, -0.2)
        axis.legend(
            loc="upper center",
            bbox_to_anchor=anchor,
            fontsize=_SMALL,
            borderaxespad=0,
            title=title,
            title_fontsize=_SMALL,
        )
    cells = [cell for series in data.series for cell in series.cells.values()]
    caption = (
        f"{kind.title}, mean over seeds with 95 % bands, point by point. Legends: {METRIC_TITLES[kind.metric]}. "
        f"{interval_sentence(cells)} Bands are intervals of the same kind{kind.begin}.{_few(cells)} {data.sentence} "
        "Dotted: chance."
    )
    return Drawing(figure=figure, caption=caption)


CHANCE: dict[str, Any] = {"color": "#666666", "linewidth": 0.8, "linestyle": ":"}
"""How the line of guessing looks."""


def _legend(series: Series, label: str) -> str:
    """Name, value and interval of a line."""
    cell = series.cells[label]
    if cell.value is None:
        return series.name
    mark = FEW_MARK if cell.few else ""
    interval = mark if cell.low is None or cell.high is None else f" [{cell.low:.2f}, {cell.high:.2f}]"
    return f"{series.name} {cell.value:.2f}{interval}"


def _few(cells: Sequence[Cell]) -> str:
    """For a caption: why some lines have neither band nor interval."""
    return f" {FEW_MARK} No band and no interval: {TOO_FEW}." if any(cell.few for cell in cells) else ""


def cumulative(truth: np.ndarray, score: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """True and false positives at every distinct threshold, highest first, each (b, K)."""
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    ranked = weights[:, order].astype(np.float64)
    hits = np.cumsum(ranked * truth[order], axis=1)[:, last]
    return hits, np.cumsum(ranked, axis=1)[:, last] - hits
