"""`label-efficiency`: a metric by the share of labels used and the initialisation."""

from __future__ import annotations

import pyarrow as pa

from results.cells.options import Options
from results.tables.differences import with_differences
from results.tables.pivot import Pivot, lay_out, with_counts
from results.tables.table import Table

PIVOT = Pivot(title="{metric} by share of labels used and initialisation", rows=("label_fraction",), columns=("init",))


def build(results: pa.Table, options: Options) -> Table:
    """A metric by the share of labels used and the initialisation; with `difference` also those to one of them."""
    return with_counts(with_differences(lay_out(PIVOT, results, options), options))
