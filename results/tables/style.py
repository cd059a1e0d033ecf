"""Tables in the style `mean-sd`: the standard deviation over seeds in place of the interval.

It says how far seeds spread and nothing about the test patients, so that the caption no longer speaks of intervals.
"""

from __future__ import annotations

import dataclasses
import statistics

from results.cells.captions import interval_sentence
from results.cells.cell import Cell
from results.errors import InputError
from results.tables.render import Table


def with_deviations(table: Table) -> Table:
    """The table with mean and standard deviation (n - 1) in every cell of results; differences keep their intervals.

    Raises:
        InputError: the table has no cells of results, such as one that is made from predictions.
    """
    before = [cell for line in table.cells for cell in line if cell is not None and cell.rows]
    if not before:
        raise InputError(f"--style mean-sd: {table.name} has no means of runs to show so; leave the option out")
    counts = sorted({cell.n for cell in before if cell.value is not None and cell.text is None})
    seeds = f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}" if counts else "n = 0"
    said = f"Mean \u00b1 standard deviation over seeds ({seeds}), which does not include the spread over test patients."
    intervals = interval_sentence(before)
    caption = table.caption.replace(intervals, said) if intervals in table.caption else f"{table.caption} {said}"
    cells = tuple(tuple(None if cell is None else _spread(cell) for cell in line) for line in table.cells)
    return dataclasses.replace(table, caption=caption, cells=cells)


def _spread(cell: Cell) -> Cell:
    if cell.value is None or cell.text is not None or not cell.rows:
        return cell
    values = [row["value"] for row in cell.rows if row["value"] is not None]
    sd = statistics.stdev(values) if len(values) > 1 else None
    return dataclasses.replace(cell, low=None, high=None, interval=None, sd=sd)
