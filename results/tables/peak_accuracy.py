"""`peak-accuracy`: the best setting of each initialisation, chosen on validation."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from results import levels
from results.cells import comparable, config_keys
from results.cells.captions import caption_of, notes_of
from results.cells.cell import Cell, gather
from results.cells.display import AXIS_TITLES, LOWER_IS_BETTER, show, sort_key
from results.cells.options import Options
from results.cells.select import RowChoice, choose, make_axes, varying
from results.cells.significance import marked
from results.schema import MACRO, Row
from results.stats.validation import validation_value
from results.tables.table import Table
from results.wording import count, listing


def build(results: pa.Table, options: Options) -> Table:
    """The best setting of each initialisation for each pathology, chosen on validation, reported on test."""
    metric = options.metric or "accuracy"
    choice = RowChoice.of(options, (metric,), None)
    rows = choose(results, choice)
    if options.label != MACRO:
        rows = [row for row in rows if row["label"] != MACRO]
    down, across = tuple(options.rows or ("init",)), ("label",)
    make_axes(rows, down)
    if not options.rows and len({row["test_dataset"] for row in rows}) > 1:
        down = ("test_dataset", *down)
    if "level" not in down and len({levels.of(row) for row in rows}) > 1:  # asked for, and no setting to choose among
        down = ("level", *down)
    rows = comparable.with_common_labels(rows, results, (), choice.among)
    free = _free(rows, (*down, *across))
    cells = _best_settings(gather(rows, down, (*across, *free), options.allow), metric)
    row_keys = sorted(
        {key for key, _ in cells}, key=lambda key: [sort_key(a, v) for a, v in zip(down, key, strict=True)]
    )
    columns = sorted({key for _, key in cells}, key=lambda key: sort_key("label", key[0]))
    grid = [[cells[row, column].cell if (row, column) in cells else None for column in columns] for row in row_keys]
    verdict = None
    if options.test:
        grid, verdict = marked(grid, lambda _, c, cell: (c, cell.rows[0]["test_dataset"], levels.of(cell.rows[0])))
    return Table(
        caption=caption_of(
            "{metric} at each initialisation's best setting",
            rows,
            (*down, *across, *free),
            [best.cell for best in cells.values()],
        ),
        notes=(
            *_notes(free, list(cells.values())),
            *notes_of(rows, grid, verdict, "column", shown=(*down, *across, *free)),
        ),
        row_titles=tuple(AXIS_TITLES.get(axis, axis) for axis in down),
        row_names=tuple(tuple(show(a, v) for a, v in zip(down, key, strict=True)) for key in row_keys),
        column_title=AXIS_TITLES["label"],
        column_names=tuple(show("label", key[0]) for key in columns),
        cells=tuple(tuple(line) for line in grid),
        digits=options.digits,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Best:
    """The setting chosen for one place of the table."""

    cell: Cell
    setting: tuple[Any, ...]
    """Values of the axes chosen over."""
    merit: float
    """Higher is better: on validation where that is known, else on test."""
    on_validation: bool
    among: int
    """Settings there were."""


def _free(rows: Sequence[Row], shown: Sequence[str]) -> tuple[str, ...]:
    """What a setting consists of: axes and configuration keys that take several values inside a place of the table."""
    free = varying(rows, shown)
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[axis] for axis in (*shown, *free)), []).append(row)
    keys = sorted({key for group in groups.values() for key in config_keys.differing(group)})
    for key in keys:
        config_keys.set_axis(rows, key)
    return (*free, *keys)


def _best_settings(
    candidates: dict[tuple[tuple[Any, ...], tuple[Any, ...]], Cell], metric: str
) -> dict[tuple[Any, Any], _Best]:
    """For each row and label the setting with the best mean over its seeds on validation."""
    cells: dict[tuple[Any, Any], _Best] = {}
    for (row_key, column_key), cell in candidates.items():
        place = (row_key, column_key[:1])
        if cell.value is None:  # stands in the table as undefined unless another setting has a value
            undefined = _Best(cell=cell, setting=(), merit=float("-inf"), on_validation=False, among=0)
            cells.setdefault(place, undefined)
            continue
        score = _on_validation(cell, metric)
        merit = (-1 if metric in LOWER_IS_BETTER else 1) * cell.value if score is None else score
        held = cells.get(place)
        among = 1 if held is None else held.among + 1
        # A setting with validation scores is preferred to one that could only be chosen on test.
        if held is None or (score is not None, merit) > (held.on_validation, held.merit):
            held = _Best(cell=cell, setting=column_key[1:], merit=merit, on_validation=score is not None, among=among)
        cells[place] = dataclasses.replace(held, among=among)
    return cells


def _notes(free: Sequence[str], cells: Sequence[_Best]) -> list[str]:
    cells = [best for best in cells if best.among]
    if not free or max((best.among for best in cells), default=0) < 2:
        return ["There is one setting per initialisation, so nothing was chosen."]
    names = listing([AXIS_TITLES.get(axis, axis).lower() if axis in AXIS_TITLES else axis for axis in free])
    numbers = sorted({best.among for best in cells})
    among = f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
    unit = levels.unit(row for best in cells for row in best.cell.rows)
    on_test = sum(best.among > 1 and not best.on_validation for best in cells)
    if not on_test:
        text = f"The setting ({names}) of each cell was chosen on validation {unit}, among {among}."
    else:
        text = (
            f"Caution: the setting ({names}) of {on_test} of {len(cells)} cells was chosen on the test {unit}, because"
            " the predictions on validation were not found; those values are optimistic."
        )
    times = Counter(best.setting for best in cells)
    chosen = [
        f"{', '.join(f'{AXIS_TITLES.get(a, a)} {show(a, v)}' for a, v in zip(free, setting, strict=True))} ({n})"
        for setting, n in times.most_common(_MOST_SETTINGS)
    ]
    more = f" and {count(len(times) - _MOST_SETTINGS, 'more')}" if len(times) > _MOST_SETTINGS else ""
    return [text, f"Chosen (cells): {'; '.join(chosen)}{more}."]


_MOST_SETTINGS = 6


def _on_validation(cell: Cell, metric: str) -> float | None:
    """Mean over the cell's runs, lower-is-better metrics negated; None when one is not known."""
    values = [validation_value(row, metric) for row in cell.rows]
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return (-1 if metric in LOWER_IS_BETTER else 1) * sum(known) / len(known)
