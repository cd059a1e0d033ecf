"""Cells of a table: the runs that differ in their seed only, as a mean with an interval."""

from __future__ import annotations

import dataclasses
import functools
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from results import common, dataset_names
from results.cell_checks import check
from results.errors import InputError
from results.metrics import METRICS
from results.schema import MACRO, read_metrics
from results.select import Row
from results.stats import seed_interval

MIN_SEEDS = 3
"""Seeds from which the spread over seeds is an interval: with two, Student's t has one degree of freedom and reaches
12.7 standard errors, which says nothing. Below it the interval is that over test patients, and the caption says so."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell, as numbers."""

    value: float | None = None
    """Mean over seeds; None when undefined."""
    low: float | None = None
    """Lower end of the 95 % interval."""
    high: float | None = None
    """Upper end."""
    n: int = 0
    """Runs (seeds) in the mean."""
    interval: str | None = None
    """`seeds` (Student's t over seeds), `patients` (bootstrap; of two runs the mean of their bounds), or None."""
    best: bool = False
    """Whether the paired tests call it better than all it was compared with."""
    text: str | None = None
    """What to print instead of the numbers."""
    rows: tuple[Row, ...] = dataclasses.field(default=(), repr=False)
    """The result rows it is made of, by seed."""


def gather(
    rows: Sequence[Row], down: Sequence[str], across: Sequence[str], allow: Collection[str] = ()
) -> dict[tuple[tuple[Any, ...], tuple[Any, ...]], Cell]:
    """Cells by (row key, column key).

    Raises:
        InputError: a cell's runs differ in more than their seed (see `cell_checks.check`), unless allowed.
    """
    groups: dict[tuple[tuple[Any, ...], tuple[Any, ...]], list[Row]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[axis] for axis in down), tuple(row[axis] for axis in across)].append(row)
    for group in groups.values():
        check(group, allow)
    return {key: summarise(group) for key, group in groups.items()}


def summarise(group: Sequence[Row]) -> Cell:
    """One cell of runs that differ in their seed."""
    group = sorted(group, key=lambda row: (row["seed"] is None, row["seed"] or 0, str(row["run"])))
    defined = [row for row in group if row["value"] is not None]
    values = [row["value"] for row in defined]
    if not values:
        return Cell(n=0, rows=tuple(group))
    low, high, interval = None, None, None
    if len(values) >= MIN_SEEDS:
        (low, high), interval = seed_interval(values), "seeds"
        if defined[0]["metric"] in METRICS:  # all of them lie in [0, 1]; Student's t does not know
            low, high = max(low, 0.0), min(high, 1.0)
    else:
        bounds = [_patient_interval(row) for row in defined]
        if all(pair[0] is not None for pair in bounds):
            low, high = (sum(pair[place] or 0.0 for pair in bounds) / len(bounds) for place in (0, 1))
            interval = "patients"
    return Cell(
        value=sum(values) / len(values), low=low, high=high, n=len(values), interval=interval, rows=tuple(group)
    )


def _patient_interval(row: Row) -> tuple[float | None, float | None]:
    """The interval over test patients that the run wrote; computed here for a mean that was taken again."""
    if common.LEFT_OUT not in row:
        return row["ci_low"], row["ci_high"]
    return common.interval(row, cuts_of(str(row["source"]), str(row["test_dataset"]), row["test_dataset_hash"]))


def cuts_of(source: str, dataset: str, content: str | None = None) -> dict[str, float | None]:
    """The thresholds by label that a run's metrics on a test set were computed with; empty when its file is gone.

    Args:
        source: the metrics file, as a collected table names it.
        dataset: the test set's name there.
        content: its hash there, `test_dataset_hash`.
    """
    try:
        return _cuts(source, dataset, content, Path(source).stat().st_mtime_ns)
    except (InputError, OSError):
        return {}


@functools.lru_cache(maxsize=256)
def _cuts(source: str, dataset: str, content: str | None, _written: int) -> dict[str, float | None]:
    rows = read_metrics(Path(source)).select(["test_dataset", "label", "metric", "threshold"]).to_pylist()
    name = dataset_names.in_run(dataset, content, {row["test_dataset"] for row in rows})
    return {
        row["label"]: row["threshold"]
        for row in rows
        if row["metric"] == "accuracy" and row["test_dataset"] == name and row["label"] != MACRO
    }
