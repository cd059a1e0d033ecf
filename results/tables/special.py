"""The tables that are more than one metric laid out along two axes: ablation, peak accuracy, and the models' extras."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from results import configs, levels
from results.cells import comparable
from results.cells.captions import caption_of, macro_notes, notes_of, setting_notes
from results.cells.cell import Cell, gather
from results.cells.display import (
    AXIS_TITLES,
    FULL_RECIPE,
    LOWER_IS_BETTER,
    METRIC_TITLES,
    count,
    listing,
    show,
    sort_key,
)
from results.cells.options import Options
from results.cells.select import Choice, Row, choose, layout, make_axes, varying
from results.cells.significance import ALPHA, TWO_MODELS, Comparer, judge
from results.errors import InputError
from results.schema import MACRO
from results.stats import bootstrap
from results.stats.delong import Difference
from results.tables.overview import validation_value
from results.tables.render import Table


def ablation(results: pa.Table, options: Options) -> Table:
    """Each variant against the full recipe: its value, the difference with interval, and the corrected p."""
    axis = options.rows[0] if options.rows else "variant"
    metric = options.metric or "auroc"
    choice = Choice.of(options, (metric,), (MACRO,))
    rows = choose(results, choice)
    added = layout(rows, (axis,), (), chosen=False)[1]
    if len({row[axis] for row in rows}) < 2:
        raise InputError(
            f"nothing to compare: all results have {axis} = {show(axis, rows[0][axis])}; name another axis with --rows"
        )
    rows = comparable.comparable(rows, results, added, choice.among)
    cells = {key[0]: cell for key, cell in gather(rows, (*added, axis), (), options.allow).items()}
    reference = _reference(rows, axis, options)
    order = sorted(
        cells,
        key=lambda key: (
            [sort_key(name, value) for name, value in zip(added, key, strict=False)],
            key[-1] != reference,
            sort_key(axis, key[-1]),
        ),
    )
    comparer, differences = Comparer(), {}
    for key in order:
        base = cells.get((*key[:-1], reference))
        if key[-1] != reference and base is not None and options.test:
            differences[key] = comparer.compare(cells[key], base)
    tested = [key for key, outcome in differences.items() if isinstance(outcome, Difference)]
    corrected = dict(zip(tested, bootstrap.holm([differences[key].p for key in tested]), strict=True))
    lines = []
    for key in order:
        outcome = differences.get(key)
        base = cells.get((*key[:-1], reference))
        lines.append((cells[key], *_effect(cells[key], base, outcome, corrected.get(key), key[-1] == reference)))
    methods = sorted({differences[key].method for key in tested})
    reasons = sorted({outcome for outcome in differences.values() if isinstance(outcome, str)})
    note = f"Difference: variant minus {show(axis, reference)}, on the same test {levels.unit(rows)}"
    note += f"; intervals and p by {listing(methods)}" if methods else ""
    bold = f"bold: significantly different from zero, p < {ALPHA:g}"
    note += f", p Holm-corrected over {len(tested)}; {bold}." if tested else "."
    if any(min(len(cells[key].rows), len(cells[(*key[:-1], reference)].rows)) < 2 for key in tested):
        note += f" {TWO_MODELS}"
    notes = [note, *([f"Not tested: {listing(reasons)}."] if reasons else []), *macro_notes(rows, added)]
    notes += setting_notes(rows, [cell.rows for cell in cells.values()], (*added, axis))
    return Table(
        name="ablation",
        caption=caption_of(
            "{metric} of the full recipe and of variants of it", rows, (*added, axis), list(cells.values()), "block"
        ),
        notes=tuple(notes),
        row_titles=tuple(AXIS_TITLES.get(name, name) for name in (*added, axis)),
        row_names=tuple(
            tuple(show(name, value) for name, value in zip((*added, axis), key, strict=True)) for key in order
        ),
        column_names=(METRIC_TITLES.get(metric, metric), "Difference", "p"),
        cells=tuple(lines),
        digits=options.digits,
    )


def _reference(rows: Sequence[Row], axis: str, options: Options) -> Any:
    held = {row[axis] for row in rows}
    if options.reference is None or options.reference == FULL_RECIPE:
        if None in held:
            return None
        names = ", ".join(sorted(map(str, held)))
        raise InputError(
            f"no run is the full recipe ({axis} is always set: {names}); name one with --reference, or another axis"
            " with --rows"
        )
    for value in held:
        if options.reference in (str(value), show(axis, value)):
            return value
    raise InputError(f"--reference {options.reference}: {axis} has only {', '.join(sorted(map(str, held)))}")


def _effect(
    cell: Cell, base: Cell | None, outcome: Difference | str | None, p: float | None, is_reference: bool
) -> tuple[Cell | None, Cell | None]:
    """The cells `Difference` and `p` of an ablation row."""
    if is_reference:
        return Cell(text="reference"), Cell(text="")
    if base is None or base.value is None or cell.value is None:
        return None, None
    if isinstance(outcome, Difference):
        difference = Cell(
            value=cell.value - base.value,
            low=outcome.low,
            high=outcome.high,
            n=cell.n,
            best=p is not None and p < ALPHA and min(len(cell.rows), len(base.rows)) > 1,
        )
        assert p is not None
        return difference, Cell(text="< 0.001" if p < 0.001 else f"{p:.3f}")
    return Cell(value=cell.value - base.value, n=cell.n), Cell(text="not tested")


def peak_accuracy(results: pa.Table, options: Options) -> Table:
    """The best setting of each initialisation for each pathology, chosen on validation, reported on test."""
    metric = options.metric or "accuracy"
    choice = Choice.of(options, (metric,), None)
    rows = choose(results, choice)
    if options.label != MACRO:
        rows = [row for row in rows if row["label"] != MACRO]
    down, across = tuple(options.rows or ("init",)), ("label",)
    make_axes(rows, down)
    if not options.rows and len({row["test_dataset"] for row in rows}) > 1:
        down = ("test_dataset", *down)
    if "level" not in down and len({levels.of(row) for row in rows}) > 1:  # asked for, and no setting to choose among
        down = ("level", *down)
    rows = comparable.comparable(rows, results, (), choice.among)
    free = _free(rows, (*down, *across))
    cells = _best_settings(gather(rows, down, (*across, *free), options.allow), metric)
    row_keys = sorted(
        {key for key, _ in cells}, key=lambda key: [sort_key(a, v) for a, v in zip(down, key, strict=True)]
    )
    columns = sorted({key for _, key in cells}, key=lambda key: sort_key("label", key[0]))
    grid = [[cells[row, column].cell if (row, column) in cells else None for column in columns] for row in row_keys]
    verdict = None
    if options.test:
        width = len(columns)
        groups: dict[Any, list[tuple[int, Cell]]] = {}
        for r, line in enumerate(grid):
            for c, cell in enumerate(line):
                if cell is not None:
                    groups.setdefault((c, cell.rows[0]["test_dataset"], levels.of(cell.rows[0])), []).append(
                        (r * width + c, cell)
                    )
        verdict = judge(list(groups.values()), Comparer())
        grid = [
            [
                dataclasses.replace(cell, best=True) if cell and r * width + c in verdict.best else cell
                for c, cell in enumerate(line)
            ]
            for r, line in enumerate(grid)
        ]
    return Table(
        name="peak-accuracy",
        caption=caption_of(
            "{metric} at each initialisation's best setting",
            rows,
            (*down, *across, *free),
            [best.cell for best in cells.values()],
        ),
        notes=(
            *_peak_notes(free, list(cells.values())),
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
    keys = sorted({key for group in groups.values() for key in configs.differing(group)})
    for key in keys:
        configs.set_axis(rows, key)
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


def _peak_notes(free: Sequence[str], cells: Sequence[_Best]) -> list[str]:
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
            " the predictions on validation were not found; those values are too good."
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


def with_misses_and_size(
    table: Table,
    results: pa.Table,
    rows: Sequence[Row],
    down: Sequence[str],
    by: Sequence[str],
    row_keys: Sequence[tuple[Any, ...]],
    options: Options,
) -> Table:
    """The models table with false negatives n/N (all labels together, or the chosen ones) and parameters."""
    choice = Choice.of(
        dataclasses.replace(options, label=None if options.label == MACRO else options.label), ("fn",), None
    )
    misses = comparable.on_all(choose(results, choice), [axis for axis in by if axis != "metric"])
    missed: dict[tuple[Any, ...], dict[str, list[int]]] = {}
    for row in misses:
        if row["value"] is not None and row["n_pos"] is not None:
            runs = missed.setdefault(tuple(row[axis] for axis in down), {})
            held = runs.setdefault(str(row["signature"]), [0, 0])
            held[0] += int(row["value"])
            held[1] += int(row["n_pos"])
    sizes: dict[tuple[Any, ...], set[int]] = {}
    for row in rows:
        if row["n_parameters"] is not None:
            sizes.setdefault(tuple(row[axis] for axis in down), set()).add(row["n_parameters"])
    extra = [(_missed(missed.get(key)), _size(sizes.get(key))) for key in row_keys]
    labels = {row["label"] for row in misses}
    note = "False negatives: missed positives of all positives"
    note += f", over {len(labels)} labels together" if len(labels) > 1 else ""
    note += "; mean over seeds" if any(len(runs) > 1 for runs in missed.values()) else ""
    return dataclasses.replace(
        table,
        column_title="",
        column_names=(*table.column_names, "False negatives", "Parameters"),
        cells=tuple((*line, *more) for line, more in zip(table.cells, extra, strict=True)),
        notes=(*table.notes, f"{note}, at the threshold chosen on validation."),
    )


def _missed(runs: dict[str, list[int]] | None) -> Cell | None:
    if not runs:
        return None
    missed, positives = (sum(held[place] for held in runs.values()) / len(runs) for place in (0, 1))
    return Cell(value=missed, n=len(runs), text=f"{_number(missed)}/{_number(positives)}")


def _number(value: float) -> str:
    return f"{value:.0f}" if value == int(value) else f"{value:.1f}"


def _size(sizes: set[int] | None) -> Cell | None:
    if not sizes or len(sizes) > 1:
        return None
    size = next(iter(sizes))
    return Cell(value=float(size), n=1, text=f"{size / 1e6:.2f} M" if size >= 1e5 else str(size))
