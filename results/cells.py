"""Cells of a table: the runs that differ in their seed only, as a mean with an interval."""

from __future__ import annotations

import dataclasses
import functools
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from results import common, dataset_names
from results.errors import InputError
from results.metrics import METRICS
from results.run import Run
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
    rows: Sequence[Row], down: Sequence[str], across: Sequence[str], allow_duplicates: bool = False
) -> dict[tuple[tuple[Any, ...], tuple[Any, ...]], Cell]:
    """Cells by (row key, column key).

    Raises:
        InputError: two runs of one seed in a cell, unless allowed.
    """
    groups: dict[tuple[tuple[Any, ...], tuple[Any, ...]], list[Row]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[axis] for axis in down), tuple(row[axis] for axis in across)].append(row)
    return {key: summarise(group, allow_duplicates) for key, group in groups.items()}


def summarise(group: Sequence[Row], allow_duplicates: bool = False) -> Cell:
    """One cell of runs that differ in their seed."""
    group = sorted(group, key=lambda row: (row["seed"] is None, row["seed"] or 0, str(row["run"])))
    if not allow_duplicates:
        _refuse_duplicates(group)
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


def _refuse_duplicates(group: Sequence[Row]) -> None:
    seen: dict[Any, Row] = {}
    for row in group:
        first = seen.setdefault(row["seed"], row)
        if first is not row:
            raise InputError(
                f"two runs share seed {row['seed']} in one cell: {first['run']} and {row['run']}"
                f" ({_differences(first, row)}); choose with --where, or ask for both with --allow seeds"
            )


def _differences(first: Row, second: Row) -> str:
    """What tells two runs apart that a table cannot."""
    for axis in ("n_labelled", "fraction_hash", "git_commit"):
        if first[axis] != second[axis]:
            return f"they differ in {axis}: {first[axis]} and {second[axis]}"
    configs = [config_of(row) for row in (first, second)]
    names = sorted(set(configs[0]) | set(configs[1]))
    differ = [name for name in names if configs[0].get(name) != configs[1].get(name)]
    if differ:
        return "their config.toml differ in " + ", ".join(
            f"{name} ({configs[0].get(name)} and {configs[1].get(name)})" for name in differ[:3]
        )
    return f"signatures {first['signature']} and {second['signature']}"


def config_of(row: Row) -> dict[str, Any]:
    """The run's configuration by dotted name; empty when its folder is gone."""
    try:
        return flat(Run(Path(str(row["source"])).parent.parent).read_config())
    except InputError:
        return {}


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as dotted names."""
    out: dict[str, Any] = {}
    for key, value in config.items():
        out |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return out
