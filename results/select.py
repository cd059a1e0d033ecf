"""Choose the rows that a table or figure is about, and refuse those that do not belong together."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)
from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from results.common import comparable
from results.errors import InputError
from results.names import AXES, AXIS_TITLES
from results.schema import METRICS

Row = dict[str, Any]

ALLOWANCES = {
    "splits": "several split schemes of one test set",
    "policies": "several label policies on one test set",
    "seeds": "several runs of one seed in one cell",
}
"""What is refused unless it is asked for."""


MIXABLE = {"split_scheme": "splits", "label_policy": "policies"}
"""Columns whose mixture on one test set must be asked for, and is always shown."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """Which rows of a results table to use."""

    metrics: tuple[str, ...] | None = None
    """Metric names; None takes all."""
    labels: tuple[str, ...] | None = None
    """Label names, or macro; None takes all."""
    where: tuple[str, ...] = ()
    """Filters `column=value` or `column=value,value`; a row must meet all."""
    allow: tuple[str, ...] = ()
    """Names of `ALLOWANCES`."""


def choose(table: pa.Table, choice: Choice) -> list[Row]:
    """The chosen rows, checked to belong together; macro means over common labels (see `common.comparable`).

    Initialisations of one name that come from different pretraining runs get the run's signature added to their name.

    Raises:
        InputError: no row is left; a filter names no column; split schemes or label policies are mixed.
    """
    unknown = sorted(set(choice.allow) - set(ALLOWANCES))
    if unknown:
        raise InputError(f"--allow {unknown[0]} is not known; there are {', '.join(ALLOWANCES)}")
    table = everything = table.filter(pc.is_valid(table["label"]))
    for column, values in [_filter(text) for text in choice.where] + [
        (name, list(wanted)) for name, wanted in (("metric", choice.metrics), ("label", choice.labels)) if wanted
    ]:
        kept = table.filter(_matches(table[column], values))
        if not len(kept):
            held = sorted({str(value) for value in pc.unique(table[column]).to_pylist()})
            raise InputError(
                f"no results with {column} = {' or '.join(values)}; the values are: {', '.join(held[:20])}"
            )
        table = kept
    if not len(table):
        raise InputError("there are no results to choose from")
    rows = table.to_pylist()
    _refuse_mixtures(rows, choice.allow)
    return _told_apart(comparable(rows, everything))


def _filter(text: str) -> tuple[str, list[str]]:
    column, sign, value = text.partition("=")
    if not sign or column not in METRICS.names:
        raise InputError(f"--where {text!r} is not column=value; columns: {', '.join(METRICS.names)}")
    return column, [part.strip() for part in value.split(",")]


def _matches(column: pa.ChunkedArray, values: Sequence[str]) -> pa.ChunkedArray:
    if pa.types.is_floating(column.type) or pa.types.is_integer(column.type):
        try:
            return pc.is_in(column, pa.array([float(value) for value in values]).cast(column.type))
        except (ValueError, pa.ArrowInvalid) as error:
            raise InputError(f"{', '.join(values)}: a number is needed") from error
    wanted = pa.array([None if value in ("none", "null") else value for value in values], pa.string())
    return pc.is_in(column.cast(pa.string()), wanted)


def _refuse_mixtures(rows: Sequence[Row], allow: Iterable[str]) -> None:
    for column, word in MIXABLE.items():
        if word in allow:
            continue
        by_set: dict[str, set[str]] = defaultdict(set)
        for row in rows:
            by_set[str(row["test_dataset"])].add(str(row[column]))
        for dataset, values in by_set.items():
            if len(values) > 1:
                raise InputError(
                    f"results on {dataset} mix {ALLOWANCES[word].split(' of ')[0].split(' on ')[0]}"
                    f" ({', '.join(sorted(values))}), which are not comparable; choose one with"
                    f" --where {column}={min(values)}, or ask for it with --allow {word}"
                )


def _told_apart(rows: list[Row]) -> list[Row]:
    sources: dict[str, set[str | None]] = defaultdict(set)
    for row in rows:
        sources[str(row["init"])].add(row["init_signature"])
    for row in rows:
        if len(sources[str(row["init"])]) > 1 and row["init_signature"]:
            row["init"] = f"{row['init']} ({row['init_signature'][:6]})"
    return rows


def varying(rows: Sequence[Row], shown: Sequence[str]) -> list[str]:
    """Axes that take several values inside some cell of the axes `shown`."""
    found = []
    for axis in AXES:
        if axis in shown:
            continue
        values: dict[tuple[Any, ...], set[Any]] = defaultdict(set)
        for row in rows:
            values[tuple(row[name] for name in shown)].add(row[axis])
        if any(len(held) > 1 for held in values.values()):
            found.append(axis)
    return found


def layout(
    rows: Sequence[Row], down: Sequence[str], across: Sequence[str], chosen: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The row axes of a table, and which of them had to be added so that a cell differs in seeds only.

    Args:
        rows: chosen results.
        down: axes of the table's rows.
        across: axes of its columns.
        chosen: whether the user named `down`, so that nothing may be added or left out.

    Raises:
        InputError: the user's axes do not tell all cells apart, or do not exist.
    """
    for axis in (*down, *across):
        if axis not in AXES:
            raise InputError(f"{axis} cannot be rows or columns; there are: {', '.join(AXES)}")
    added = [axis for axis in MIXABLE if axis not in (*down, *across) and _mixed(rows, axis) and not chosen]
    while free := varying(rows, [*added, *down, *across]):
        if chosen:
            held = sorted({str(row[free[0]]) for row in rows})
            raise InputError(
                f"{free[0]} takes {len(held)} values ({', '.join(held[:6])}) inside one cell;"
                f" add it to --rows, or choose with --where {free[0]}={held[0]}"
            )
        added.append(free[0])
    kept = tuple(down)
    if not chosen:
        several = tuple(axis for axis in down if len({row[axis] for row in rows}) > 1)
        kept = several or (() if added or not down else tuple(down[-1:]))
    added.sort(key=AXES.index)
    return (*added, *kept), tuple(added)


def _mixed(rows: Sequence[Row], axis: str) -> bool:
    """Whether results on one test set differ in `axis`."""
    return len({(row["test_dataset"], row[axis]) for row in rows}) > len({row["test_dataset"] for row in rows})


def constant(rows: Sequence[Row], shown: Sequence[str]) -> Mapping[str, Any]:
    """Axes that are not shown because they have one value, and that value."""
    return {
        axis: rows[0][axis]
        for axis in AXIS_TITLES
        if axis not in (*shown, "seed") and len({row[axis] for row in rows}) == 1
    }
