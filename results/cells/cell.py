"""Cells of a table: the runs that differ in their seed only, as a mean with an interval."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from results.cells import comparable
from results.cells.checks import check
from results.schema import Row
from results.stats import effects, uncertainty
from results.stats.influence import INTERVAL_METRICS
from results.stats.uncertainty import Components

STORED_REACH = 2 * 1.959963984540054
"""Standard errors between the ends of an interval that a run wrote itself."""


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
    """`both` (test patients and seeds), `patients` (of one run), or None."""
    few: bool = False
    """Whether there is no interval because too few patients carry the value (see `effects.TOO_FEW`)."""
    best: bool = False
    """Whether the paired tests call it better than all it was compared with."""
    text: str | None = None
    """What to print instead of the numbers."""
    p: float | None = None
    """Of a difference: its p value, corrected for the comparisons of the table."""
    sd: float | None = None
    """Standard deviation over seeds, where it stands in place of the interval."""
    rows: tuple[Row, ...] = dataclasses.field(default=(), repr=False)
    """The result rows it is made of, by seed."""


def gather(
    rows: Sequence[Row], down: Sequence[str], across: Sequence[str], allow: Collection[str] = ()
) -> dict[tuple[tuple[Any, ...], tuple[Any, ...]], Cell]:
    """Cells by (row key, column key).

    Raises:
        InputError: a cell's runs differ in more than their seed (see `checks.check`), unless allowed.
    """
    groups: dict[tuple[tuple[Any, ...], tuple[Any, ...]], list[Row]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[axis] for axis in down), tuple(row[axis] for axis in across)].append(row)
    for group in groups.values():
        check(group, allow)
    effects.prepare(row for row in rows if row["value"] is not None)
    return {key: summarise(group) for key, group in groups.items()}


def summarise(group: Sequence[Row]) -> Cell:
    """One cell of runs that differ in their seed."""
    group = sorted(group, key=lambda row: (row["seed"] is None, row["seed"] or 0, str(row["run"])))
    defined = [row for row in group if row["value"] is not None]
    values = [row["value"] for row in defined]
    if not values:
        return Cell(n=0, rows=tuple(group))
    bounds = effects.interval(defined)
    few = bounds == effects.TOO_FEW
    if isinstance(bounds, str):
        bounds = (None, None) if few else _stored_interval(defined)
    return Cell(
        value=sum(values) / len(values),
        low=bounds[0],
        high=bounds[1],
        n=len(values),
        interval=None if bounds[0] is None else "both" if len(values) > 1 else "patients",
        few=few,
        rows=tuple(group),
    )


def _stored_interval(rows: Sequence[Row]) -> tuple[float | None, float | None]:
    """An interval without predictions, from those that the runs wrote themselves.

    They say nothing of how alike the seeds answer, so that of several seeds it is taken that all err on the same
    patients: never too narrow.
    """
    pairs = [(row["ci_low"], row["ci_high"]) for row in rows if comparable.LEFT_OUT not in row]
    if rows[0]["metric"] not in INTERVAL_METRICS or len(pairs) < len(rows) or any(None in pair for pair in pairs):
        return None, None
    if len(pairs) == 1:
        return pairs[0]
    values = np.array([row["value"] for row in rows])
    parts = Components(
        value=float(values.mean()),
        patients=float(np.mean([((high - low) / STORED_REACH) ** 2 for low, high in pairs])),
        patient_freedom=np.inf,
        seeds=float(values.var(ddof=1)) / len(values),
        seed_freedom=len(values) - 1,
    )
    return uncertainty.bounds(parts, None)
