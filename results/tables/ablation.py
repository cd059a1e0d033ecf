"""`ablation`: variants of the full recipe against it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from results import levels
from results.cells import comparable
from results.cells.captions import caption_of, macro_notes, setting_notes
from results.cells.cell import Cell, gather
from results.cells.display import AXIS_TITLES, FULL_RECIPE, METRIC_TITLES, show, sort_key
from results.cells.options import Options
from results.cells.select import RowChoice, choose, layout
from results.cells.significance import ALPHA, TWO_MODELS, Comparer
from results.errors import InputError
from results.schema import MACRO, Row
from results.stats import multiple_testing
from results.stats.delong import Difference
from results.tables.table import Table, p_text
from results.wording import listing


def build(results: pa.Table, options: Options) -> Table:
    """Each variant against the full recipe: its value, the difference with interval, and the corrected p."""
    axis = options.rows[0] if options.rows else "variant"
    metric = options.metric or "auroc"
    choice = RowChoice.of(options, (metric,), (MACRO,))
    rows = choose(results, choice)
    added = layout(rows, (axis,), (), chosen=False)[1]
    if len({row[axis] for row in rows}) < 2:
        raise InputError(
            f"nothing to compare: all results have {axis} = {show(axis, rows[0][axis])}; name another axis with --rows"
        )
    rows = comparable.with_common_labels(rows, results, added, choice.among)
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
    corrected = dict(zip(tested, multiple_testing.holm([differences[key].p for key in tested]), strict=True))
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
            p=p,
        )
        assert p is not None
        return difference, Cell(text=p_text(p), p=p)
    return Cell(value=cell.value - base.value, n=cell.n), Cell(text="not tested")
