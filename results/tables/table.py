"""A table ready to be printed, and how its cells become words; the formats are in `render` and `latex`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from results.cells.cell import Cell
from results.cells.display import FEW_MARK, SINGLE_SEED_MARK, UNDEFINED


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A table ready to be printed."""

    name: str = ""
    """The name it is asked for by; the registry knows it."""
    caption: str
    """What it shows, on which data, with which intervals."""
    notes: tuple[str, ...] = ()
    """Sentences below the table: tests, gaps, limits."""
    row_titles: tuple[str, ...]
    """Headers of the leading columns."""
    row_names: tuple[tuple[str, ...], ...]
    """The leading columns of every row."""
    column_title: str = ""
    """Header above the data columns; empty for none."""
    column_names: tuple[str, ...]
    """Headers of the data columns."""
    cells: tuple[tuple[Cell | None, ...], ...]
    """Rows of cells; None is missing."""
    digits: int = 3
    """Digits after the point."""
    below: bool = False
    """LaTeX: whether intervals stand below their values, which makes columns narrower."""
    narrow: bool = False
    """LaTeX: whether it is for a narrow column, and set in a smaller type however few its columns."""
    split: int | None = None
    """LaTeX: data columns of one part of a table whose parts stand below one another; None = all in one."""

    @property
    def mixed_intervals(self) -> bool:
        """Whether some intervals cover seeds and others patients alone, so that cells must say which."""
        return len({cell.interval for row in self.cells for cell in row if cell and cell.interval}) > 1


@dataclasses.dataclass(frozen=True)
class Words:
    """How one format writes the parts of a cell."""

    escape: Callable[[str], str]
    bold: str
    interval: str
    mark: str
    missing: str
    spread: str = " \u00b1 {}"
    minus: str = "-"
    """Sign of a negative value."""
    minus_inside: str = "-"
    """The same in an interval."""


PLUS_MINUS = "\u00b1"


def difference_text(cell: Cell, digits: int, *, sign: bool = True) -> str:
    """A difference with interval and p, as all formats print it."""
    text = f"{cell.value:{'+' if sign else ''}.{digits}f}"
    if cell.low is not None and cell.high is not None:
        text += f" [{cell.low:.{digits}f}, {cell.high:.{digits}f}]"
    return text + ("" if cell.p is None else f", p {p_text(cell.p)}")


def p_text(p: float) -> str:
    """A p value: three digits, or that it is below them."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def cell_text(cell: Cell | None, table: Table, words: Words) -> str:
    """A cell as words: mean [low, high], bold when best, marked when its interval is the exception."""
    if cell is None:
        return words.missing
    if cell.text is not None:
        return words.escape(cell.text)
    if cell.value is None:
        return words.escape(UNDEFINED)
    text = f"{cell.value:.{table.digits}f}".replace("-", words.minus)
    text = words.bold.format(text) if cell.best else text
    if cell.sd is not None:
        text += words.spread.format(f"{cell.sd:.{table.digits}f}")
    elif not table.below:
        text += interval_text(cell, table, words)
    if cell.interval == "patients" and table.mixed_intervals:
        text += words.mark.format(words.escape(SINGLE_SEED_MARK))
    if cell.few:
        text += words.mark.format(words.escape(FEW_MARK))
    return text


def interval_text(cell: Cell, table: Table, words: Words) -> str:
    """The interval of a cell as it stands behind its value; nothing where it has none."""
    if cell.low is None or cell.high is None:
        return ""
    ends = (f"{end:.{table.digits}f}".replace("-", words.minus_inside) for end in (cell.low, cell.high))
    return words.interval.format(*ends)


def grid(table: Table, words: Words, escape: Callable[[str], str] | None = None) -> list[list[str]]:
    """Rows of escaped words; a leading column repeats nothing that stands right above it.

    Args:
        table: the table.
        words: how cells are written.
        escape: how the leading columns are written; None = as cells.
    """
    escape = escape or words.escape
    lines, above = [], ("\0",) * len(table.row_titles)
    for names, cells in zip(table.row_names, table.cells, strict=True):
        fresh = [names[: place + 1] != above[: place + 1] for place in range(len(names))]
        lead = [escape(name) if new else "" for name, new in zip(names, fresh, strict=True)]
        lines.append(lead + [cell_text(cell, table, words) for cell in cells])
        above = names
    return lines
