"""Macro means that may stand beside each other: over the labels that all compared runs have.

A run whose label fraction lacked a label, or which was trained on fewer, has a mean over fewer labels. Means over
different labels are different quantities, so wherever runs are compared their means are recomputed, from the rows of
the single labels, over the labels that all runs of that comparison have on that test set: a row of a table, or a
column, or a panel of a figure. Runs elsewhere in the table change nothing.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)
from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from results import levels
from results.cells.display import show
from results.errors import InputError
from results.metric_names import METRICS
from results.schema import MACRO, Row
from results.stats.effects import LABELS
from results.wording import count, listing

LEFT_OUT = "left_out"
"""Key of a macro row that was recomputed: labels which the run has and others do not; absent otherwise."""

LACKING = "lacking"
"""Key of a macro row over labels that were asked for: those of them for which the run has no value."""

_RUN = ("source", "job", "test_dataset", "split_scheme", "label_policy", "level")
_MOST_NAMED = 8


def with_common_labels(
    rows: Sequence[Row], table: pa.Table, by: Sequence[str] = (), among: Sequence[str] | None = None
) -> list[Row]:
    """The rows, with macro means over the labels that all runs of a comparison have.

    Runs are compared that were tested on one test set, at one level, in one metric and agree in the axes `by`: what
    stands elsewhere in a table changes no mean. Rows without a value stay out of the count. Where no label is common,
    or the rows of single labels are not there, nothing is changed; such means are not compared and a note says so.

    Args:
        rows: chosen results.
        table: all results, with the rows of single labels behind the means.
        by: axes whose values tell comparisons apart.
        among: labels that means go over, exactly: a run without a value for one of them has no mean; None takes all
            that are common.

    Raises:
        InputError: no run has a value for all of `among`.
    """
    means = [row for row in rows if row["label"] == MACRO and row["metric"] in METRICS and row["value"] is not None]
    if not means:
        return list(rows)
    single = _single_labels(means, table)
    again: dict[int, Row] = {}
    for group in _grouped(means, by).values():
        held = [single.get((*(row[name] for name in _RUN), row["metric"]), {}) for row in group]
        if among is not None:
            again |= {id(row): _exactly(row, one, among) for row, one in zip(group, held, strict=True)}
            continue
        if any(len(one) != row["n_labels"] for row, one in zip(group, held, strict=True)):
            continue  # files that hold means alone
        common = sorted(set.intersection(*map(set, held)))
        for row, one in zip(group, held, strict=True):
            again[id(row)] = _over(row, one, common) if common else row | {LABELS: tuple(sorted(one))}
    if among is not None and all(row["value"] is None for row in again.values()):
        lacking = sorted({label for row in again.values() for label in row[LACKING]})
        raise InputError(
            f"no run has a value for all of the labels {', '.join(among)} on its test set; lacking are"
            f" {', '.join(lacking)}"
        )
    return [again.get(id(row), row) for row in rows]


def _grouped(means: Iterable[Row], by: Sequence[str]) -> dict[tuple[Any, ...], list[Row]]:
    groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in means:
        groups[row["test_dataset"], levels.of(row), row["metric"], *(row.get(axis) for axis in by)].append(row)
    return groups


def _single_labels(means: Sequence[Row], table: pa.Table) -> dict[tuple[Any, ...], dict[str, float]]:
    """(run, metric) -> label -> value, of the labels whose value is defined."""
    mask = pc.and_(pc.is_valid(table["value"]), pc.not_equal(table["label"], MACRO))
    for name in ("metric", "source"):
        wanted = pa.array(sorted({str(row[name]) for row in means}))
        mask = pc.and_(mask, pc.is_in(table[name], wanted))
    out: dict[tuple[Any, ...], dict[str, float]] = defaultdict(dict)
    for row in table.filter(mask).select([*_RUN, "metric", "label", "value"]).to_pylist():
        out[(*(row[name] for name in _RUN), row["metric"])][row["label"]] = row["value"]
    return out


def _over(row: Row, single: dict[str, float], labels: Sequence[str]) -> Row:
    """A macro row over `labels` alone; its interval is left to `effects`, which reads predictions."""
    if len(labels) == len(single):
        return row | {LABELS: tuple(labels)}
    total = row["n_labels"] + (row["n_labels_undefined"] or 0)
    return row | {
        "value": sum(single[label] for label in labels) / len(labels),
        "ci_low": None,
        "ci_high": None,
        "n_labels": len(labels),
        "n_labels_undefined": total - len(labels),
        LABELS: tuple(labels),
        LEFT_OUT: tuple(sorted(set(single) - set(labels))),
    }


def _exactly(row: Row, single: dict[str, float], among: Sequence[str]) -> Row:
    """A macro row over the labels that were asked for; without a value where the run lacks one of them."""
    lacking = tuple(sorted(set(among) - set(single)))
    if lacking:
        return row | {"value": None, "ci_low": None, "ci_high": None, "n_labels": 0, LACKING: lacking}
    return _over(row, single, sorted(among)) | {"n_labels_undefined": 0, LACKING: ()}


def differ(rows: Iterable[Row], by: Sequence[str] = ()) -> bool:
    """Whether means that are compared (see `with_common_labels`) still go over different labels."""
    held: dict[tuple[Any, ...], set[Any]] = defaultdict(set)
    for row in rows:
        if row["label"] == MACRO and row["n_labels"]:
            place = (row["test_dataset"], levels.of(row), row["metric"], *(row.get(axis) for axis in by))
            held[place].add(row.get(LABELS, row["n_labels"]))
    return any(len(values) > 1 for values in held.values())


def sentence(rows: Sequence[Row], scope: str = "") -> str:
    """For a caption: over which labels means go, and what they leave out; empty where they go over all that runs have.

    Args:
        rows: results with means recomputed.
        scope: which runs share their labels, where not all do: row, column or panel.
    """
    asked = sorted({name for row in rows if row.get(LACKING) == () for name in row[LABELS]})
    if asked:
        named = [show("label", name).lower() for name in asked]
        return f"Means are over {listing(named)}." if len(named) > 1 else ""
    words = []
    for dataset in sorted({str(row["test_dataset"]) for row in rows if row.get(LEFT_OUT) is not None}):
        held = [row for row in rows if str(row["test_dataset"]) == dataset and row.get(LABELS) is not None]
        kept = sorted({len(row[LABELS]) for row in held if row["label"] == MACRO})
        gone = sorted({name for row in held for name in row.get(LEFT_OUT, ())})
        named = [show("label", name).lower() for name in gone]
        which = listing(named) if len(named) <= _MOST_NAMED else f"{count(len(named), 'label')} that some runs have"
        number = count(kept[0], "label") if len(kept) == 1 else f"{kept[0]} to {kept[-1]} labels"
        sets = {row[LABELS] for row in held if row["label"] == MACRO}
        every = f"every run of a {scope}" if scope and len(sets) > 1 else "every run"
        words.append(f"the {number} that {every} has on {dataset} (left out: {which})")
    return f"Means are over {' and '.join(words)}." if words else ""


def only_label(rows: Iterable[Row]) -> str | None:
    """The label that every mean among the rows is of, where that is one and the same label."""
    held = {row.get(LABELS) for row in rows if row["label"] == MACRO and row["value"] is not None}
    label = next(iter(held)) if len(held) == 1 else None
    return label[0] if label is not None and len(label) == 1 else None


def on_all(rows: Iterable[Row], by: Sequence[str] = ()) -> list[Row]:
    """Of rows of single labels, those of labels for which all runs of a comparison have a value."""
    rows = [row for row in rows if row["value"] is not None]
    places = [(row["test_dataset"], levels.of(row), *(row.get(axis) for axis in by)) for row in rows]
    runs: dict[Any, dict[Any, set[str]]] = defaultdict(lambda: defaultdict(set))
    for place, row in zip(places, rows, strict=True):
        runs[place][row["source"]].add(row["label"])
    common = {place: set.intersection(*held.values()) for place, held in runs.items()}
    return [row for place, row in zip(places, rows, strict=True) if row["label"] in common[place]]
