"""Tables in the style `mean-sd`, with the standard deviation over seeds for the interval, and without intervals.

A deviation says how far seeds spread and nothing about the test patients; captions say what is shown.
"""

from __future__ import annotations

import dataclasses
import statistics

from results.cells.captions import interval_sentence
from results.cells.cell import Cell
from results.errors import InputError
from results.tables.table import Table


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


def without_intervals(table: Table) -> Table:
    """The table without intervals, of values and of differences, and a caption that says so."""
    before = [cell for line in table.cells for cell in line if cell is not None and cell.rows]
    cells = tuple(tuple(None if cell is None else _bare(cell, table.digits) for cell in line) for line in table.cells)
    after = [cell for line in cells for cell in line if cell is not None and cell.rows]
    caption = table.caption.replace(interval_sentence(before), interval_sentence(after)) if before else table.caption
    notes = tuple(note.replace("; intervals and p by", "; p by") for note in table.notes)
    return dataclasses.replace(table, caption=caption, notes=notes, cells=cells)


def _bare(cell: Cell, digits: int) -> Cell:
    if cell.low is None or cell.high is None:
        return cell
    text = cell.text and cell.text.replace(f" [{cell.low:.{digits}f}, {cell.high:.{digits}f}]", "")
    return dataclasses.replace(cell, low=None, high=None, interval=None, text=text)
