"""A table as Markdown, LaTeX (see `latex`), CSV or HTML."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Callable, Sequence

from results.cells.cell import Cell
from results.cells.display import MISSING, UNDEFINED
from results.errors import InputError
from results.tables.latex import latex, siunitx
from results.tables.table import Table, Words, grid

_MARKDOWN = Words(lambda text: text.replace("|", "\\|"), "**{}**", " [{}, {}]", "{}", MISSING)
_HTML = Words(html.escape, "<strong>{}</strong>", ' <span class="ci">[{}, {}]</span>', "<sup>{}</sup>", MISSING)


def render(table: Table, form: str) -> str:
    """The table in one of `FORMATS`, ending in a newline.

    Raises:
        InputError: an unknown format.
    """
    if form not in FORMATS:
        raise InputError(f"unknown format {form!r}; there are {', '.join(FORMATS)}")
    if form not in ("latex", "siunitx") and (table.below or table.split is not None):
        raise InputError(f"intervals below and split are for the formats latex and siunitx, not for {form}")
    return FORMATS[form](table)


def _markdown(table: Table) -> str:
    head = [_MARKDOWN.escape(name) for name in (*table.row_titles, *table.column_names)]
    rule = ["---"] * len(table.row_titles) + ["---:"] * len(table.column_names)
    lines = ["| " + " | ".join(row) + " |" for row in [head, rule, *grid(table, _MARKDOWN)]]
    return "\n".join([f"**{table.caption}**", "", *lines, *(f"\n{note}" for note in table.notes)]) + "\n"


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
        for row in grid(table, _HTML)
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
    "latex": latex,
    "siunitx": siunitx,
    "csv": _csv,
    "html": _html,
}
