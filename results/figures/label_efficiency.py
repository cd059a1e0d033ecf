"""`label-efficiency`: a metric over the share of labels used."""

from __future__ import annotations

import pyarrow as pa

from results.cells.options import Options
from results.figures.label_curves import over_labels
from results.figures.style import Drawing


def draw(results: pa.Table, options: Options) -> Drawing:
    """Metric over the share of labels, one line per initialisation, one panel per test set and setting."""
    return over_labels(results, options, "label_fraction")
