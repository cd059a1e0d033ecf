"""The paper tables by name: the only place that lists them.

A table is one file: `build(results, options)` makes it, and its line is here. Files are named, not imported, so that
listing the tables costs nothing. Where a table can turn out to print only what another one prints, its file has
`repeats(results)`, which says why.
"""

from __future__ import annotations

import dataclasses
from importlib import import_module
from typing import TYPE_CHECKING

from results.cells.options import Options
from results.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

    from results.tables.table import Table

TABLES: dict[str, str] = {
    "label-efficiency": "results.tables.label_efficiency",
    "transfer": "results.tables.transfer",
    "labels-saved": "results.tables.labels_saved",
    "per-class": "results.tables.per_class",
    "ablation": "results.tables.ablation",
    "models": "results.tables.models",
    "metrics": "results.tables.metrics",
    "thresholds": "results.tables.thresholds",
    "peak-accuracy": "results.tables.peak_accuracy",
    "operating-points": "results.tables.operating_points",
    "subgroups": "results.tables.subgroups",
    "calibration": "results.tables.calibration",
    "search": "results.tables.search",
    "cost": "results.tables.cost",
}
"""Every table, as `cxrdist table NAME` takes it, and the module that makes it; the order is that of a report."""


def build(name: str, results: pa.Table, options: Options | None = None) -> Table:
    """Make a table from collected results.

    Args:
        name: one of `TABLES`.
        results: a table of `collect.COLLECTED`.
        options: what the user asked for; None takes the table's own choices.

    Raises:
        InputError: an unknown name, no fitting results, results that may not be mixed, cells that are not one thing.
    """
    if name not in TABLES:
        raise InputError(f"unknown table {name!r}; there are {', '.join(TABLES)}")
    options = options or Options()
    table = dataclasses.replace(import_module(TABLES[name]).build(results, options), name=name)
    from results.tables.style import with_deviations, without_intervals

    if options.style == "mean-sd":
        table = with_deviations(table)
    if options.intervals == "none":
        table = without_intervals(table)
    narrow = options.intervals != "beside" or options.split is not None
    return dataclasses.replace(table, below=options.intervals == "below", split=options.split, narrow=narrow)


def repeats(name: str, results: pa.Table) -> str | None:
    """Why a table would only print another one again; None where it adds something."""
    module = import_module(TABLES[name])
    return module.repeats(results) if hasattr(module, "repeats") else None
