"""The figures by name: the only place that lists them.

A figure is one file: `draw(results, options)` makes it, and its line is here. Files are named, not imported, so that
listing the figures costs nothing, and matplotlib is imported when one is drawn. A file with `PER_TEST_SET = True` is
drawn once for each test set in a report.
"""

from __future__ import annotations

import dataclasses
from importlib import import_module
from typing import TYPE_CHECKING

from results.cells.options import Options
from results.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

    from results.figures.style import Drawing

FIGURES: dict[str, str] = {
    "label-efficiency": "results.figures.label_efficiency",
    "data-scaling": "results.figures.data_scaling",
    "per-class": "results.figures.per_class",
    "forest": "results.figures.forest",
    "roc": "results.figures.roc",
    "precision-recall": "results.figures.precision_recall",
    "confusion": "results.figures.confusion",
    "calibration": "results.figures.calibration",
    "threshold-sweep": "results.figures.threshold_sweep",
    "history": "results.figures.history",
}
"""Every figure, as `cxrdist plot NAME` takes it, and the module that draws it; the order is that of a report."""


def draw(name: str, results: pa.Table, options: Options | None = None) -> Drawing:
    """Draw a figure from collected results.

    Args:
        name: one of `FIGURES`.
        results: a table of `collect.COLLECTED`.
        options: what the user asked for; None takes the figure's own choices.

    Raises:
        InputError: an unknown name, no fitting results, results that may not be mixed.
    """
    if name not in FIGURES:
        raise InputError(f"unknown figure {name!r}; there are {', '.join(FIGURES)}")
    from results.figures.style import styled

    with styled():
        return dataclasses.replace(import_module(FIGURES[name]).draw(results, options or Options()), name=name)


def per_test_set(name: str) -> bool:
    """Whether a figure is of one test set, so that a report draws it once for each."""
    return getattr(import_module(FIGURES[name]), "PER_TEST_SET", False)
