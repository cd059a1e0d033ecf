"""Choose the rows that a table or figure is about, and refuse those that do not belong together."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)
from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from results import configs
from results.cells import config_keys
from results.cells.display import AXES, AXIS_TITLES, IMPLIED, LABEL_SETS, show
from results.cells.inits import with_distinct_inits
from results.cells.options import Options
from results.errors import InputError
from results.schema import MACRO, METRICS, Row

ALLOWANCES = {
    "splits": "several split schemes of one test set",
    "policies": "several label policies on one test set",
    "levels": "several levels on one test set",
    "sets": "several test sets of one name in one cell",
    "configs": "runs of several configurations in one cell",
    "seeds": "several runs of one seed in one cell",
}
"""What is refused unless it is asked for."""


MIXABLE = {"split_scheme": "splits", "label_policy": "policies", "level": "levels"}
"""Columns whose mixture on one test set must be asked for, and is always shown."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowChoice:
    """Which rows of a results table to use."""

    metrics: tuple[str, ...] | None = None
    """Metric names; None takes all."""
    labels: tuple[str, ...] | None = None
    """Label names, or macro; None takes all."""
    among: tuple[str, ...] | None = None
    """Labels that macro means go over, and that rows of single labels are limited to; None takes all."""
    where: tuple[str, ...] = ()
    """Filters `column=value` or `column=value,value`, of a configuration key too; a row must meet all."""
    allow: tuple[str, ...] = ()
    """Names of `ALLOWANCES`."""

    @classmethod
    def of(cls, options: Options, metrics: tuple[str, ...], labels: tuple[str, ...] | None) -> RowChoice:
        """What a user's options choose of a table's own metrics and labels.

        `--labels` and `--where label=...` say which labels are looked at: means go over these, single labels are
        these. A filter leaves a mean out of a table of single labels unless it names macro.

        Raises:
            InputError: an unknown set of labels; one label asked for beside several.
        """
        where, among = [], list(options.labels)
        filtered = [_filter(text)[1] for text in options.where if _is_of(text, "label")]
        for values in filtered:
            among += [value for value in values if value != MACRO and value not in among]
        for text in options.where:
            if not _is_of(text, "label"):
                where.append(text)
        if options.label:
            if among and options.label != MACRO:
                raise InputError(f"--label {options.label} is one label; leave out the choice of several")
            labels = (options.label,)
        elif labels is None and among:
            wants_mean = not filtered or any(MACRO in values for values in filtered)
            labels = (*among, MACRO) if wants_mean and len(among) > 1 else tuple(among)
        elif labels is None and filtered:
            labels = (MACRO,)
        return cls(
            metrics=(options.metric,) if options.metric else metrics,
            labels=labels,
            among=tuple(among) or None,
            where=tuple(where),
            allow=options.allow,
        )


def label_names(words: Iterable[str]) -> tuple[str, ...]:
    """Labels by name, with the sets `LABEL_SETS` spelled out."""
    return tuple(dict.fromkeys(name for word in words for name in LABEL_SETS.get(word, (word,))))


def choose(table: pa.Table, choice: RowChoice) -> list[Row]:
    """The chosen rows, checked to belong together; macro means as the runs wrote them.

    Initialisations of one name that come from different pretraining runs are told apart by name: see
    `with_distinct_inits`.

    Raises:
        InputError: no row is left; a filter names no column or key; split schemes or label policies are mixed.
    """
    unknown = sorted(set(choice.allow) - set(ALLOWANCES))
    if unknown:
        raise InputError(f"--allow {unknown[0]} is not known; there are {', '.join(ALLOWANCES)}")
    pretrained = table.filter(pc.equal(table["job"], "pretrain")).to_pylist()
    table = everything = table.filter(pc.is_valid(table["label"]))
    if not len(table):
        raise InputError("there are no results to choose from: these are pretraining runs; name fine-tuned ones")
    table = matching(table, choice.where)
    for column, wanted in (("metric", choice.metrics), ("label", choice.labels)):
        if wanted:
            table = _kept(table, column, list(wanted))
    if not len(table):
        raise InputError("there are no results to choose from")
    _refuse_unknown_labels(choice.among, everything)
    rows = table.to_pylist()
    runs = everything.filter(pc.is_in(everything["source"], pc.unique(table["source"])))
    _refuse_mixtures(rows, runs, choice.allow)
    return with_distinct_inits(rows, pretrained)


def matching(table: pa.Table, where: Iterable[str]) -> pa.Table:
    """The rows that meet all filters `column=value[,value]`, of a column or of a configuration key.

    Raises:
        InputError: a filter names neither, or leaves no row.
    """
    for text in where:
        table = _kept(table, *_filter(text, table))
    return table


def _kept(table: pa.Table, column: str, values: list[str]) -> pa.Table:
    if column in METRICS.names:
        kept = table.filter(_matches(table[column], values))
        held = [] if len(kept) else sorted({str(value) for value in pc.unique(table[column]).to_pylist()})
    else:
        matches, held = config_keys.mask(table, column, values)
        kept = table.filter(matches)
    if not len(kept):
        raise InputError(
            f"no results with {column} = {' or '.join(values)}; the values are: {', '.join(held[:20])}"
            + (f" (cxrdist evaluate RUN --shards SET --level {values[0]} adds them)" if column == "level" else "")
        )
    return kept


def _is_of(text: str, column: str) -> bool:
    return text.partition("=")[0].strip() == column


def _filter(text: str, table: pa.Table | None = None) -> tuple[str, list[str]]:
    """Column (or configuration key) and values of a filter; without a table the name is not checked."""
    column, sign, value = text.partition("=")
    column = column.strip()
    if not sign or (table is not None and column not in METRICS.names and column not in config_keys.keys_of(table)):
        keys = [] if table is None else sorted(config_keys.keys_of(table) - set(METRICS.names))
        raise InputError(
            f"--where {text!r} is not column=value; columns: {', '.join(name for name in METRICS.names)}"
            + (f"; configuration keys: {', '.join(keys)}" if keys else "")
        )
    return column, [part.strip() for part in value.split(",")]


def _refuse_unknown_labels(among: Sequence[str] | None, table: pa.Table) -> None:
    held = set(pc.unique(table["label"]).to_pylist()) - {MACRO}
    unknown = [label for label in among or () if label not in held]
    if unknown:
        raise InputError(
            f"no results for the label {unknown[0]}; there are {', '.join(sorted(held))}, and the sets"
            f" {', '.join(LABEL_SETS)}"
        )


def _matches(column: pa.ChunkedArray, values: Sequence[str]) -> pa.ChunkedArray:
    if pa.types.is_floating(column.type) or pa.types.is_integer(column.type):
        try:
            return pc.is_in(column, pa.array([float(value) for value in values]).cast(column.type))
        except (ValueError, pa.ArrowInvalid) as error:
            raise InputError(f"{', '.join(values)}: a number is needed") from error
    wanted = pa.array([None if value in ("none", "null") else value for value in values], pa.string())
    return pc.is_in(column.cast(pa.string()), wanted)


def _refuse_mixtures(rows: Sequence[Row], table: pa.Table, allow: Collection[str]) -> None:
    for column, word in MIXABLE.items():
        if word in allow:
            continue
        by_set: dict[str, set[str]] = defaultdict(set)
        for row in rows:
            by_set[str(row["test_dataset"])].add(str(row[column]))
        for dataset, values in by_set.items():
            if len(values) > 1 and not (column == "label_policy" and _same_truths(table, dataset)):
                choose = f"--level {min(values)}" if column == "level" else f"--where {column}={min(values)}"
                raise InputError(
                    f"results on {dataset} mix {ALLOWANCES[word].split(' of ')[0].split(' on ')[0]}"
                    f" ({', '.join(sorted(values))}), which are not comparable; choose one with {choose}, or ask for it"
                    f" with --allow {word}"
                )


def _same_truths(table: pa.Table, dataset: str) -> bool:
    """Whether each label has as many positives and negatives under every policy: then policies differ in training."""
    part = table.filter(
        (pc.field("test_dataset") == dataset) & (pc.field("label") != MACRO) & pc.is_valid(pc.field("n_pos"))
    )
    counts = part.group_by(["label", "split_scheme", "n_pos", "n_neg"]).aggregate([])
    return len(counts) == len(counts.group_by(["label", "split_scheme"]).aggregate([]))


def largest_fraction(rows: list[Row], options: Options) -> tuple[list[Row], str]:
    """The rows of the largest label fraction, and a sentence that says so, unless the user chose one."""
    fractions = {row["label_fraction"] for row in rows if row["label_fraction"] is not None}
    if len(fractions) < 2 or any(text.startswith("label_fraction=") for text in options.where):
        return rows, ""
    top = max(fractions)
    note = f" Only the largest share of labels ({show('label_fraction', top)}) is shown."
    return [row for row in rows if row["label_fraction"] == top], note


def varying(rows: Sequence[Row], shown: Sequence[str]) -> list[str]:
    """Axes that take several values inside some cell of the axes `shown`."""
    groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[name] for name in shown)].append(row)
    free = [axis for axis in AXES if axis not in (*shown, *IMPLIED)]
    return [axis for axis in free if any(_several(axis, group) for group in groups.values())]


def _several(axis: str, group: Sequence[Row]) -> bool:
    values = {row[axis] for row in group}
    if axis == "variant" and len(values) > 1:  # a name for settings: it says nothing where these are the same
        held = {config_keys.relevant(row) for row in group}
        return len(held) > 1 or None in held
    return len(values) > 1


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
    make_axes(rows, (*down, *across))
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


def make_axes(rows: Sequence[Row], axes: Sequence[str]) -> None:
    """Give rows the values of configuration keys that are asked for as axes.

    Raises:
        InputError: an axis is neither a column that can be one nor a key.
    """
    keys = config_keys.known_keys(row.get(configs.COLUMN) for row in rows)
    for axis in axes:
        if axis in AXES:
            continue
        if axis not in keys:
            more = f", and the configuration's {', '.join(sorted(keys - set(AXES)))}" if keys else ""
            raise InputError(f"{axis} cannot be rows or columns; there are: {', '.join(AXES)}{more}")
        config_keys.set_axis(rows, axis)


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
