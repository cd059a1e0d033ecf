"""`search`: the trials of a search, best on validation first."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from results import levels
from results.cells import comparable, config_keys
from results.cells.captions import caption_of, macro_notes
from results.cells.cell import Cell, gather
from results.cells.display import AXIS_TITLES, LOWER_IS_BETTER, METRIC_TITLES, show, sort_key
from results.cells.options import Options
from results.cells.select import RowChoice, choose, layout
from results.schema import MACRO
from results.stats.validation import validation_value
from results.tables.table import Table
from results.wording import count


def build(results: pa.Table, options: Options) -> Table:
    """The trials of a search on each test set, best on validation first, with the settings in which they differ."""
    metric = options.metric or "auroc"
    choice = RowChoice.of(options, (metric,), (MACRO,))
    rows = choose(results, choice)
    axes = [axis for axis in layout(rows, (), (), chosen=False)[0] if axis not in ("metric", "label")]
    rows = comparable.with_common_labels(rows, results, (), choice.among)
    settings = [key for key in config_keys.differing(rows) if key not in {*axes, *_SAID_BY_AXES}]
    for key in settings:
        config_keys.set_axis(rows, key)
    ordered = _ranked(gather(rows, (*axes, *settings), (), options.allow), axes, metric)
    shown = [trial for trials in ordered for trial in trials[: options.limit]]
    total = sum(map(len, ordered))
    notes = [_order_note(shown, len(ordered) > 1)]
    if len(shown) < total:
        each = " on each test set" if len(ordered) > 1 else ""
        notes.append(f"The first {min(options.limit, max(map(len, ordered)))}{each} of {count(total, 'trial')}.")
    notes += macro_notes(rows)
    title = METRIC_TITLES.get(metric, metric)
    places = [str(place) for trials in ordered for place, _ in enumerate(trials[: options.limit], 1)]
    return Table(
        caption=caption_of("{metric} of the trials of a search", rows, axes, [trial.cell for trial in shown]),
        notes=tuple(notes),
        row_titles=("Rank", *(AXIS_TITLES[axis] for axis in axes), *settings),
        row_names=tuple(
            (
                place if trial.on_validation is not None or not _any_validated(shown) else "\u2013",
                *(show(axis, value) for axis, value in zip((*axes, *settings), trial.key, strict=True)),
            )
            for place, trial in zip(places, shown, strict=True)
        ),
        column_names=(f"Validation {title}", f"Test {title}"),
        cells=tuple(
            (
                None if trial.on_validation is None else Cell(value=trial.on_validation, n=trial.cell.n),
                trial.cell,
            )
            for trial in shown
        ),
        digits=options.digits,
    )


_SAID_BY_AXES = {"shards", "init", "variant"}
"""Configuration keys that columns of the results say better: the training set, the initialisation."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Trial:
    """One setting of a search."""

    key: tuple[Any, ...]
    """Values of the axes, then of the settings."""
    cell: Cell
    on_validation: float | None
    """Mean over its runs; None when undefined, or when the predictions are gone."""


def _ranked(
    cells: dict[tuple[tuple[Any, ...], tuple[Any, ...]], Cell], axes: Sequence[str], metric: str
) -> list[list[_Trial]]:
    """The trials of each test set, best first: by validation where any has a value there; the undefined come last."""
    blocks: dict[str, list[_Trial]] = {}
    for (key, _), cell in cells.items():
        known = [validation_value(row, metric) for row in cell.rows]
        values = [value for value in known if value is not None]
        mean = sum(values) / len(values) if values and len(values) == len(known) else None
        block = f"{cell.rows[0]['test_dataset']} {levels.of(cell.rows[0])}"
        blocks.setdefault(block, []).append(_Trial(key=key, cell=cell, on_validation=mean))
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    for trials in blocks.values():
        validated = _any_validated(trials)

        def order(trial: _Trial, validated: bool = validated) -> tuple[Any, ...]:
            value = trial.on_validation if validated else trial.cell.value
            names = [sort_key(axis, part) for axis, part in zip(axes, trial.key, strict=False)]
            return (value is None, -sign * (value or 0.0), names, [str(part) for part in trial.key])

        trials.sort(key=order)
    return [blocks[name] for name in sorted(blocks)]


def _any_validated(trials: Sequence[_Trial]) -> bool:
    """Whether trials can be ordered by validation."""
    return any(trial.on_validation is not None for trial in trials)


def _order_note(shown: Sequence[_Trial], several: bool) -> str:
    where = ", within each test set" if several else ""
    if not _any_validated(shown):
        return (
            f"Caution: ordered by test{where}, because no trial has a value on validation; the top value is optimistic."
        )
    missing = sum(trial.on_validation is None for trial in shown)
    last = (
        f" {count(missing, 'trial')} without a value there (undefined, or its predictions are gone), listed last."
        if missing
        else ""
    )
    return f"Ordered by validation{where}.{last}"
