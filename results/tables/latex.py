"""A table as LaTeX: booktabs, with columns of text or of numbers aligned at the decimal point (siunitx).

Where a table is wider than the page, intervals may stand below their values, and columns may be split into parts that
stand below one another; nothing is scaled.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence

from results.cells.cell import Cell
from results.cells.display import FEW_MARK, SINGLE_SEED_MARK
from results.tables.table import PLUS_MINUS, Table, Words, grid, interval_text

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "\u2013": "--",
    "\u2212": "$-$",
    PLUS_MINUS: r"$\pm$",
    "\u00d7": r"$\times$",
    SINGLE_SEED_MARK: r"\textsuperscript{\dag}",
    FEW_MARK: r"\textsuperscript{\ddag}",
}


def escaped(text: str) -> str:
    """Text that LaTeX prints as it stands."""
    return "".join(_ESCAPES.get(letter, letter) for letter in text)


_SIGN = re.compile(r"(?<![\w.)\]-])-(?=\d)")


def _signed(text: str) -> str:
    """`escaped`, with a true minus before negative numbers and no other hyphen changed."""
    return escaped(_SIGN.sub("\u2212", text))


MINUS = "$-$"
_TEXT = Words(
    _signed,
    bold=r"\textbf{{{}}}",
    interval=r" {{\scriptsize[{}, {}]}}",
    mark="{}",
    missing="--",
    spread=r" $\pm$ {}",
    minus=MINUS,
    minus_inside=MINUS,
)
_NUMBERS = Words(
    lambda text: f"{{{_signed(text)}}}",
    bold=r"\bfseries {}",
    interval=r" {{\,\scriptsize[{}, {}]}}",
    mark=" {}",
    missing="{--}",
    spread=r" \pm {}",
    minus_inside=MINUS,
)
_BELOW = dataclasses.replace(_TEXT, interval=r"{{\scriptsize[{}, {}]}}")

WIDE = 5
"""Columns beyond which a LaTeX table is set smaller, so that it fits between the margins."""


@dataclasses.dataclass(frozen=True)
class _Columns:
    """How a LaTeX table sets its data columns."""

    packages: str
    kinds: tuple[str, ...]
    """Of each data column, as tabular takes it."""
    words: Words
    head: Callable[[str], str]
    """Writes a column's head."""


def latex(table: Table) -> str:
    """Columns of text, aligned to the right."""
    return _environment(table, _Columns("booktabs", ("r",) * len(table.column_names), _TEXT, escaped))


def siunitx(table: Table) -> str:
    """Columns of numbers (siunitx's S), aligned at the decimal point; what is no plain number stands in braces."""
    columns = zip(*table.cells, strict=True) if table.cells else [()] * len(table.column_names)
    kinds = tuple(_number_column(column, table) for column in columns)
    return _environment(table, _Columns("booktabs,siunitx", kinds, _NUMBERS, lambda text: f"{{{escaped(text)}}}"))


def _number_column(cells: Sequence[Cell | None], table: Table) -> str:
    """An S column with room for the numbers of its cells and what stands behind them."""
    held = [cell for cell in cells if cell is not None and cell.value is not None and cell.text is None]
    whole = max((len(str(int(abs(cell.value or 0.0)))) for cell in held), default=1)
    sign = "-" if any((cell.value or 0.0) < 0 for cell in held) else ""
    spread = f"({table.digits + 1})" if any(cell.sd is not None for cell in held) else ""
    options = f"table-format={sign}{whole}.{table.digits}{spread}"
    options += ",separate-uncertainty" if spread else ""
    return f"S[{options},table-align-text-after=false,detect-weight,mode=text]"


def _environment(table: Table, columns: _Columns) -> str:
    """A table environment with its caption above, its columns in one part or several, and its notes below."""
    data = len(table.column_names)
    step = min(table.split or data, data) or 1
    parts = [range(start, min(start + step, data)) for start in range(0, data, step)] or [range(0)]
    small = table.narrow or len(table.row_titles) + step > WIDE
    lines = [
        f"% needs \\usepackage{{{columns.packages}}}",
        r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{{escaped(table.caption)}}}",
        rf"\label{{tab:{table.name}}}",
        r"\medskip",
        *([r"\footnotesize\setlength{\tabcolsep}{4pt}"] if small else []),
    ]
    for number, part in enumerate(parts):
        lines += [*(["", r"\medskip"] if number else []), *_tabular(table, columns, part)]
    if table.notes:
        notes = " ".join(escaped(note) for note in table.notes)
        lines += ["", r"\smallskip", rf"\parbox{{0.95\linewidth}}{{\footnotesize {notes}}}"]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _tabular(table: Table, columns: _Columns, part: range) -> list[str]:
    """The leading columns and some of the data columns."""
    lead = len(table.row_titles)
    kinds = "".join(columns.kinds[place] for place in part)
    head = [escaped(name) for name in table.row_titles] + [columns.head(table.column_names[place]) for place in part]
    lines = [rf"\begin{{tabular}}{{{'l' * lead}{kinds}}}", r"\toprule"]
    if table.column_title and len(part) > 1:
        lines.append("& " * lead + rf"\multicolumn{{{len(part)}}}{{c}}{{{escaped(table.column_title)}}} \\")
        lines.append(rf"\cmidrule(lr){{{lead + 1}-{lead + len(part)}}}")
    lines += [" & ".join(head) + r" \\", r"\midrule"]
    above = None
    grouped = len({names[0] for names in table.row_names}) < len(table.row_names)
    rows = zip(table.row_names, table.cells, grid(table, columns.words, escaped), strict=True)
    for names, cells, row in rows:
        if grouped and above is not None and names[0] != above:
            lines.append(r"\addlinespace")
        lines.append(" & ".join([*row[:lead], *(row[lead + place] for place in part)]) + r" \\")
        if table.below and (intervals := _intervals_below(table, [cells[place] for place in part], columns)):
            lines.append("& " * lead + " & ".join(intervals) + r" \\")
        above = names[0]
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _intervals_below(table: Table, cells: Sequence[Cell | None], columns: _Columns) -> list[str]:
    """The intervals of a line of cells; nothing where no cell has one."""
    found = ["" if cell is None or cell.text is not None else interval_text(cell, table, _BELOW) for cell in cells]
    if not any(found):
        return []
    # siunitx centres what stands in braces in its column, as it does with heads
    return [f"{{{text}}}" if text and columns.words is _NUMBERS else text for text in found]
