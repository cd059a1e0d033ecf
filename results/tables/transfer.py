"""`transfer`: a metric by the training set, on each test set."""

from __future__ import annotations

import pyarrow as pa

from results.cells.options import Options
from results.tables.differences import with_differences
from results.tables.pivot import Pivot, lay_out, with_counts
from results.tables.table import Table

PIVOT = Pivot(
    title="{metric} when trained on one dataset and tested on another",
    rows=("pretrain_dataset", "init", "train_dataset"),
    columns=("test_dataset",),
    compare="column",
    allow=("policies",),
)


def build(results: pa.Table, options: Options) -> Table:
    """A metric by the training set, on each test set; with `difference` also those to one initialisation."""
    return with_counts(with_differences(lay_out(PIVOT, results, options), options))


def repeats(results: pa.Table) -> str | None:
    """Why the table would only print `label-efficiency` again; None where it adds something."""
    held = {value for name in ("train_dataset", "test_dataset") for value in results[name].to_pylist()} - {None}
    return "one dataset alone, so it would repeat label-efficiency" if len(held) == 1 else None
