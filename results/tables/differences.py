"""Differences to one value of an axis, such as to training from scratch, beside the cells of a table."""

from __future__ import annotations

import dataclasses
from typing import Any

from results.cells.cell import Cell
from results.cells.display import IMPLIED, show
from results.cells.options import Options
from results.cells.significance import TWO_MODELS, Comparer
from results.errors import InputError
from results.stats import multiple_testing
from results.stats.delong import Difference
from results.tables.pivot import LaidOut
from results.tables.table import difference_text
from results.wording import count, listing

GIVEN_BY_INIT = (*IMPLIED, "pretrain_dataset")
"""Axes that say of an initialisation what it is: not held equal when initialisations are compared."""

MINUS = "\u2212"

Place = tuple[int, int]


def with_differences(laid: LaidOut, options: Options) -> LaidOut:
    """The table with a column of differences, interval and p for each column that can be compared.

    p values are corrected over all differences of the table (Holm).

    Raises:
        InputError: no axis of the table has the value `options.difference`.
    """
    if options.difference is None:
        return laid
    axis, reference = _reference(laid, options.difference)
    bases = _bases(laid, axis, reference)
    cells = laid.table.cells
    comparer = Comparer()
    outcomes = {
        place: comparer.compare(cell, base)
        for place, other in bases.items()
        if (cell := cells[place[0]][place[1]]) is not None and (base := cells[other[0]][other[1]]) is not None
    }
    tested = {place: one for place, one in outcomes.items() if isinstance(one, Difference)}
    corrected = dict(zip(tested, multiple_testing.holm([one.p for one in tested.values()]), strict=True))
    name = show(axis, reference)
    if axis in laid.across:
        columns = [c for c, key in enumerate(laid.column_keys) if key[laid.across.index(axis)] != reference]
        heads = [f"{laid.table.column_names[c]} {MINUS} {name}" for c in columns]
    else:
        columns = list(range(len(laid.column_keys)))
        alone = len(columns) == 1
        heads = [f"{'' if alone else laid.table.column_names[c] + ': '}{MINUS} {name}" for c in columns]
    lines = []
    for r, line in enumerate(cells):
        more = [_cell(laid, (r, c), bases, outcomes, corrected, options) for c in columns]
        lines.append((*line, *more))
    table = dataclasses.replace(
        laid.table,
        column_names=(*laid.table.column_names, *heads),
        column_title="",
        cells=tuple(lines),
        notes=(*laid.table.notes, _note(name, outcomes, tested, bases, cells, with_p=options.test)),
    )
    return dataclasses.replace(laid, table=table)


def _reference(laid: LaidOut, wanted: str) -> tuple[str, Any]:
    """The axis that has the value, initialisations first, and the value."""
    axes = sorted((*laid.down, *laid.across), key=lambda axis: axis != "init")
    held = {axis: {row[axis] for row in laid.rows} for axis in axes}
    for axis in axes:
        for value in held[axis]:
            if wanted in (str(value), show(axis, value)):
                if len(held[axis]) < 2:
                    raise InputError(f"--difference {wanted}: nothing else is there to compare with it")
                return axis, value
    words = [f"{axis}: {', '.join(sorted(map(str, values)))}" for axis, values in held.items()]
    raise InputError(f"--difference {wanted}: no such value in this table; there are {'; '.join(words)}")


def _bases(laid: LaidOut, axis: str, reference: Any) -> dict[Place, Place]:
    """Place of each cell that is not the reference's -> place of the reference's cell it is compared with."""
    axes = (*laid.down, *laid.across)
    free = {axis, *(GIVEN_BY_INIT if axis == "init" else ())}
    found: dict[tuple[Any, ...], Place] = {}
    others: list[tuple[Place, tuple[Any, ...]]] = []
    for r, row in enumerate(laid.row_keys):
        for c, column in enumerate(laid.column_keys):
            values = dict(zip(axes, (*row, *column), strict=True))
            same = tuple(value for name, value in values.items() if name not in free)
            if values[axis] == reference:
                found[same] = (r, c)
            else:
                others.append(((r, c), same))
    return {place: found[same] for place, same in others if same in found}


def _cell(
    laid: LaidOut,
    place: Place,
    bases: dict[Place, Place],
    outcomes: dict[Place, Difference | str],
    corrected: dict[Place, float],
    options: Options,
) -> Cell | None:
    cell = laid.table.cells[place[0]][place[1]]
    if cell is None:
        return None
    if place not in bases:
        return Cell(text="reference" if place in bases.values() else "")
    outcome = outcomes.get(place)
    if outcome is None:
        return None
    if isinstance(outcome, str):
        return Cell(text="not tested")
    p = corrected[place] if options.test else None
    found = Cell(value=outcome.value, low=outcome.low, high=outcome.high, n=cell.n, p=p)
    return dataclasses.replace(found, text=difference_text(found, options.digits))


def _note(
    name: str,
    outcomes: dict[Place, Difference | str],
    tested: dict[Place, Difference],
    bases: dict[Place, Place],
    cells: tuple[tuple[Cell | None, ...], ...],
    *,
    with_p: bool,
) -> str:
    text = f"Differences: minus {name}, on the same test set"
    if tested:
        methods = sorted({one.method for one in tested.values()})
        text += f"; intervals{' and p' if with_p else ''} by {listing(methods)}"
        text += f", p Holm-corrected over {count(len(tested), 'difference')}" if with_p else ""
    text += "."
    reasons = sorted({one for one in outcomes.values() if isinstance(one, str)})
    text += f" Not tested: {listing(reasons)}." if reasons else ""
    pairs = [(cells[r][c], cells[bases[r, c][0]][bases[r, c][1]]) for r, c in tested]
    alone = any(one is not None and len(one.rows) < 2 for pair in pairs for one in pair)
    return text + (f" {TWO_MODELS}" if alone else "")
