"""A table as Markdown, LaTeX (booktabs, with or without siunitx), CSV or HTML."""

from __future__ import annotations

import csv
import dataclasses
import html
import io
from collections.abc import Callable, Sequence

from results.cells.cell import Cell
from results.cells.display import FEW_MARK, MISSING, SINGLE_SEED_MARK, UNDEFINED
from results.errors import InputError


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

    @property
    def mixed_intervals(self) -> bool:
        """Whether some intervals cover seeds and others patients alone, so that cells must say which."""
        return len({cell.interval for row in self.cells for cell in row if cell and cell.interval}) > 1


@dataclasses.dataclass(frozen=True)
class _Words:
    """How one format writes the parts of a cell."""

    escape: Callable[[str], str]
    bold: str
    interval: str
    mark: str
    missing: str
    spread: str = " \u00b1 {}"


_MARKDOWN = _Words(lambda text: text.replace("|", "\\|"), "**{}**", " [{}, {}]", "{}", MISSING)
_HTML = _Words(html.escape, "<strong>{}</strong>", ' <span class="ci">[{}, {}]</span>', "<sup>{}</sup>", MISSING)


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


def render(table: Table, form: str) -> str:
    """The table in one of `FORMATS`, ending in a newline.

    Raises:
        InputError: an unknown format.
    """
    if form not in FORMATS:
        raise InputError(f"unknown format {form!r}; there are {', '.join(FORMATS)}")
    return FORMATS[form](table)


def cell_text(cell: Cell | None, table: Table, words: _Words) -> str:
    """A cell as words: mean [low, high], bold when best, marked when its interval is the exception."""
    if cell is None:
        return words.missing
    if cell.text is not None:
        return words.escape(cell.text)
    if cell.value is None:
        return words.escape(UNDEFINED)
    text = f"{cell.value:.{table.digits}f}"
    text = words.bold.format(text) if cell.best else text
    if cell.sd is not None:
        text += words.spread.format(f"{cell.sd:.{table.digits}f}")
    elif cell.low is not None and cell.high is not None:
        text += words.interval.format(f"{cell.low:.{table.digits}f}", f"{cell.high:.{table.digits}f}")
    if cell.interval == "patients" and table.mixed_intervals:
        text += words.mark.format(words.escape(SINGLE_SEED_MARK))
    if cell.few:
        text += words.mark.format(words.escape(FEW_MARK))
    return text


def _grid(table: Table, words: _Words, escape: Callable[[str], str] | None = None) -> list[list[str]]:
    """Rows of escaped words; a leading column repeats nothing that stands right above it.

    Args:
        table: the table.
        words: how cells are written.
        escape: how the leading columns are written; None = as cells.
    """
    escape = escape or words.escape
    grid, above = [], ("\0",) * len(table.row_titles)
    for names, cells in zip(table.row_names, table.cells, strict=True):
        fresh = [names[: place + 1] != above[: place + 1] for place in range(len(names))]
        lead = [escape(name) if new else "" for name, new in zip(names, fresh, strict=True)]
        grid.append(lead + [cell_text(cell, table, words) for cell in cells])
        above = names
    return grid


def _markdown(table: Table) -> str:
    head = [_MARKDOWN.escape(name) for name in (*table.row_titles, *table.column_names)]
    rule = ["---"] * len(table.row_titles) + ["---:"] * len(table.column_names)
    lines = ["| " + " | ".join(row) + " |" for row in [head, rule, *_grid(table, _MARKDOWN)]]
    return "\n".join([f"**{table.caption}**", "", *lines, *(f"\n{note}" for note in table.notes)]) + "\n"


_LATEX_ESCAPES = {
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


def latex_escape(text: str) -> str:
    """Text that LaTeX prints as it stands."""
    return "".join(_LATEX_ESCAPES.get(letter, letter) for letter in text)


_LATEX = _Words(latex_escape, r"\textbf{{{}}}", r" {{\scriptsize[{}, {}]}}", "{}", "--", r" $\pm$ {}")


WIDE = 5
"""Columns beyond which a LaTeX table is set smaller, so that it fits between the margins."""


def _latex(table: Table) -> str:
    """Columns of text, aligned to the right."""
    return _tabular(table, _Columns("booktabs", ("r",) * len(table.column_names), _LATEX, latex_escape))


@dataclasses.dataclass(frozen=True)
class _Columns:
    """How a LaTeX table sets its data columns."""

    packages: str
    kinds: tuple[str, ...]
    """Of each data column, as tabular takes it."""
    words: _Words
    head: Callable[[str], str]
    """Writes a column's head."""


def _siunitx(table: Table) -> str:
    """Columns of numbers (siunitx's S), aligned at the decimal point; what is no plain number stands in braces."""
    columns = zip(*table.cells, strict=True) if table.cells else [()] * len(table.column_names)
    kinds = tuple(_number_column(column, table) for column in columns)
    braced = _Words(
        lambda text: f"{{{latex_escape(text)}}}",
        bold=r"\bfseries {}",
        interval=r" {{\,\scriptsize[{}, {}]}}",
        mark=" {}",
        missing="{--}",
        spread=r" \pm {}",
    )
    return _tabular(table, _Columns("booktabs,siunitx", kinds, braced, lambda text: f"{{{latex_escape(text)}}}"))


def _number_column(cells: Sequence[Cell | None], table: Table) -> str:
    """An S column with room for the numbers of its cells and what stands behind them."""
    held = [cell for cell in cells if cell is not None and cell.value is not None and cell.text is None]
    whole = max((len(str(int(abs(cell.value or 0.0)))) for cell in held), default=1)
    sign = "-" if any((cell.value or 0.0) < 0 for cell in held) else ""
    spread = f"({table.digits + 1})" if any(cell.sd is not None for cell in held) else ""
    options = f"table-format={sign}{whole}.{table.digits}{spread}"
    options += ",separate-uncertainty" if spread else ""
    return f"S[{options},table-align-text-after=false,detect-weight,mode=text]"


def _tabular(table: Table, columns: _Columns) -> str:
    """A table environment with its caption above and its notes below."""
    lead, data = len(table.row_titles), len(table.column_names)
    head = [latex_escape(name) for name in table.row_titles] + [columns.head(name) for name in table.column_names]
    lines = [
        f"% needs \\usepackage{{{columns.packages}}}",
        r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{{latex_escape(table.caption)}}}",
        rf"\label{{tab:{table.name}}}",
        r"\medskip",
        *([r"\footnotesize\setlength{\tabcolsep}{4pt}"] if lead + data > WIDE else []),
        rf"\begin{{tabular}}{{{'l' * lead}{''.join(columns.kinds)}}}",
        r"\toprule",
    ]
    if table.column_title and data > 1:
        lines.append("& " * lead + rf"\multicolumn{{{data}}}{{c}}{{{latex_escape(table.column_title)}}} \\")
        lines.append(rf"\cmidrule(lr){{{lead + 1}-{lead + data}}}")
    lines += [" & ".join(head) + r" \\", r"\midrule"]
    above = None
    grouped = len({names[0] for names in table.row_names}) < len(table.row_names)
    for names, row in zip(table.row_names, _grid(table, columns.words, latex_escape), strict=True):
        if grouped and above is not None and names[0] != above:
            lines.append(r"\addlinespace")
        lines.append(" & ".join(row) + r" \\")
        above = names[0]
    lines += [r"\bottomrule", r"\end{tabular}"]
    if table.notes:
        notes = " ".join(latex_escape(note) for note in table.notes)
        lines += ["", r"\smallskip", rf"\parbox{{0.95\linewidth}}{{\footnotesize {notes}}}"]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _html(table: Table) -> str:
    head = "".join(f'<th scope="col" class="lead">{html.escape(name)}</th>' for name in table.row_titles)
    head += "".join(f'<th scope="col">{html.escape(name)}</th>' for name in table.column_names)
    above = ""
    if table.column_title and len(table.column_names) > 1:
        span = f'<th colspan="{len(table.column_names)}" class="group">{html.escape(table.column_title)}</th>'
        above = f"<tr>{'<th></th>' * len(table.row_titles)}{span}</tr>\n"
    lead = len(table.row_titles)
    body = "\n".join(
        "<tr>"
        + "".join(f'<th scope="row">{word}</th>' for word in row[:lead])
        + "".join(f"<td>{word}</td>" for word in row[lead:])
        + "</tr>"
        for row in _grid(table, _HTML)
    )
    notes = "".join(f"<p class='note'>{html.escape(note)}</p>\n" for note in table.notes)
    return (
        f'<figure class="table" id="table-{html.escape(table.name)}">\n<figcaption>{html.escape(table.caption)}'
        f"</figcaption>\n<table>\n<thead>\n{above}<tr>{head}</tr>\n</thead>\n<tbody>\n{body}\n</tbody>\n</table>\n"
        f"{notes}</figure>\n"
    )


def _csv(table: Table) -> str:
    """One line per cell with all digits, for other programs; missing cells have an empty value.

    Columns for p values and standard deviations are there where the table has some.
    """
    held = [cell for line in table.cells for cell in line if cell is not None]
    more = [name for name in ("p", "sd") if any(getattr(cell, name) is not None for cell in held)]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        [*table.row_titles, table.column_title or "Column", "value", "ci_low", "ci_high", *_CSV_EXTRA, *more]
    )
    for names, cells in zip(table.row_names, table.cells, strict=True):
        for column, cell in zip(table.column_names, cells, strict=True):
            writer.writerow(
                [*names, column, *_csv_cell(cell), *(_all_digits(getattr(cell, name, None)) for name in more)]
            )
    return out.getvalue()


_CSV_EXTRA = ("n", "interval", "best", "text")


def _csv_cell(cell: Cell | None) -> Sequence[object]:
    if cell is None:
        return ["", "", "", 0, "", "", "missing"]
    numbers = [_all_digits(number) for number in (cell.value, cell.low, cell.high)]
    undefined = UNDEFINED if cell.value is None else ""
    text = undefined if cell.text is None else cell.text
    interval = cell.interval or ("too few patients" if cell.few else "")
    return [*numbers, cell.n, interval, "yes" if cell.best else "", text]


def _all_digits(number: float | None) -> str:
    return "" if number is None else repr(float(number))


FORMATS: dict[str, Callable[[Table], str]] = {
    "markdown": _markdown,
    "latex": _latex,
    "siunitx": _siunitx,
    "csv": _csv,
    "html": _html,
}
