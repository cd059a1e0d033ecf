"""Figures by name. matplotlib is imported when one is drawn, not before."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from results.cells.options import Options
from results.errors import InputError
from results.figures import curves, grids, history, thresholds
from results.figures.style import Drawing, styled

FIGURES: dict[str, Callable[[pa.Table, Options], Drawing]] = {
    "label-efficiency": grids.label_efficiency,
    "data-scaling": grids.data_scaling,
    "per-class": grids.per_class,
    "roc": curves.roc,
    "precision-recall": curves.precision_recall,
    "confusion": thresholds.confusion,
    "calibration": thresholds.calibration,
    "threshold-sweep": thresholds.threshold_sweep,
    "history": history.history,
}

NAMES = tuple(FIGURES)
"""Every figure, as `cxrdist plot NAME` takes it."""


def draw(name: str, results: pa.Table, options: Options | None = None) -> Drawing:
    """Draw a figure from collected results.

    Args:
        name: one of `NAMES`.
        results: a table of `collect.COLLECTED`.
        options: what the user asked for; None takes the figure's own choices.

    Raises:
        InputError: an unknown name, no fitting results, results that may not be mixed.
    """
    if name not in FIGURES:
        raise InputError(f"unknown figure {name!r}; there are {', '.join(NAMES)}")
    with styled():
        return FIGURES[name](results, options or Options())
