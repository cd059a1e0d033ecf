"""`data-scaling`: a metric over the number of labelled images."""

from __future__ import annotations

import pyarrow as pa

from results.cells.options import Options
from results.figures.label_curves import over_labels
from results.figures.style import Drawing


def draw(results: pa.Table, options: Options) -> Drawing:
    """Metric over the number of labelled images, one line per initialisation."""
    return over_labels(results, options, "n_labelled")
