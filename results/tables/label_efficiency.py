"""`label-efficiency`: a metric by the share of labels used and the initialisation."""

from __future__ import annotations

import pyarrow as pa

from results.cells.options import Options
from results.tables.pivot import Pivot, pivot
from results.tables.render import Table

PIVOT = Pivot(title="{metric} by share of labels used and initialisation", rows=("label_fraction",), columns=("init",))


def build(results: pa.Table, options: Options) -> Table:
    """A metric by the share of labels used and the initialisation."""
    return pivot(PIVOT, results, options)
