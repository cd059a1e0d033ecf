"""`per-class`: a metric per pathology and initialisation."""

from __future__ import annotations

import pyarrow as pa

from results.cells.options import Options
from results.schema import MACRO
from results.tables.pivot import Pivot, pivot
from results.tables.table import Table

PIVOT = Pivot(title="{metric} per pathology and initialisation", rows=("label",), columns=("init",), labels=None)


def build(results: pa.Table, options: Options) -> Table:
    """A metric per pathology and initialisation."""
    return pivot(PIVOT, results, options)


def repeats(results: pa.Table) -> str | None:
    """Why the table would only print `label-efficiency` again; None where it adds something."""
    held = set(results["label"].to_pylist()) - {None, MACRO}
    return "one label alone, so it would repeat label-efficiency" if len(held) == 1 else None
