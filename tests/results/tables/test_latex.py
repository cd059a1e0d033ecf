"""LaTeX tables: signs, widths that fit a column, parts; and that pdflatex takes all of it."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from pathlib import Path

import pyarrow as pa
import pytest

from results.cells.cell import Cell
from results.cells.options import Options
from results.collect import collect
from results.errors import InputError
from results.tables.registry import build
from results.tables.render import render
from results.tables.table import Table
from tests.results import simulate

TWO_COLUMNS = r"\documentclass[twocolumn]{article}"


def compiled(folder: Path, text: str, *, packages: str = "booktabs", kind: str = TWO_COLUMNS) -> str:
    """Compile tables in a document and return the log; a machine without TeX skips the test."""
    pdflatex, found = shutil.which("pdflatex"), shutil.which("kpsewhich")
    if not pdflatex or not found:
        pytest.skip("TeX: no pdflatex here")
    for package in packages.split(","):
        if not subprocess.run([found, f"{package}.sty"], capture_output=True).stdout:
            pytest.skip(f"TeX: no {package}.sty here")
    document = f"{kind}\n\\usepackage{{{packages}}}\n\\begin{{document}}\n{text}\n\\end{{document}}\n"
    (folder / "paper.tex").write_text(document, encoding="utf-8")
    words = [pdflatex, "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(words, cwd=folder, capture_output=True, timeout=120, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    return (folder / "paper.log").read_text(encoding="latin-1")


def small(*cells: Cell | None) -> Table:
    names = tuple(f"c{place}" for place in range(len(cells)))
    return Table(
        name="small", caption="Small.", row_titles=("Row",), row_names=(("first-1",),), column_title="Over all",
        column_names=names, cells=(cells,),
    )  # fmt: skip


def body(text: str) -> list[str]:
    """Rows of all tabulars, without heads and rules."""
    parts = re.findall(r"\\midrule\n(.*?)\\bottomrule", text, re.DOTALL)
    return [line for part in parts for line in part.splitlines() if line.endswith(r"\\")]


NEGATIVE = small(
    Cell(value=-0.5, low=-0.75, high=-0.25), Cell(text="-0.012 [-0.1, 0.2] (PA-AP, x-1)"), Cell(value=0.25)
)


def test_negative_numbers_have_a_true_minus_and_words_keep_their_hyphens() -> None:
    (row,) = body(render(NEGATIVE, "latex"))
    assert row.startswith(r"first-1 & $-$0.500 {\scriptsize[$-$0.750, $-$0.250]}")
    assert r"& $-$0.012 [$-$0.1, 0.2] (PA-AP, x-1) & 0.250" in row
    (row,) = body(render(NEGATIVE, "siunitx"))
    assert r"& -0.500 {\,\scriptsize[$-$0.750, $-$0.250]} &" in row, "siunitx sets the sign of a number itself"
    assert "{$-$0.012 [$-$0.1, 0.2] (PA-AP, x-1)}" in row
    assert "-0.500 [-0.750, -0.250]" in render(NEGATIVE, "markdown")


@pytest.mark.parametrize("form", ["latex", "siunitx"])
def test_intervals_stand_below_their_values_where_asked(form: str) -> None:
    values, intervals = body(render(dataclasses.replace(NEGATIVE, below=True), form))
    assert "[$-$0.750" not in values and "0.500" in values
    assert [cell.strip(" \\") for cell in intervals.split("&")][2:] == ["", ""], "a text and a value without interval"
    assert r"{\scriptsize[$-$0.750, $-$0.250]}" in intervals
    plain = dataclasses.replace(small(Cell(value=0.5)), below=True)
    assert len(body(render(plain, form))) == 1, "no line without an interval"


def test_columns_are_split_into_parts_that_keep_the_leading_ones(results: pa.Table) -> None:
    table = build("label-efficiency", results, Options(split=2))
    text = render(table, "latex")
    parts = re.findall(r"\\begin\{tabular\}\{(\w+)\}\n\\toprule\n(.*?)\\midrule", text, re.DOTALL)
    assert [kind for kind, _ in parts] == ["llrr", "llr"] and text.count(r"\begin{table}") == 1
    assert r"\multicolumn{2}" in parts[0][1] and "multicolumn" not in parts[1][1]
    assert "Scratch & ImageNet" in parts[0][1] and "simclr:nih" in parts[1][1]
    rows = body(text)
    assert len(rows) == 2 * len(table.row_names) and all(row.startswith(name[0]) for row, name in zip(
        [row.replace(r"\%", "%") for row in rows], table.row_names * 2, strict=True))  # fmt: skip


def test_without_intervals_the_caption_speaks_of_none(results: pa.Table) -> None:
    with_them, without = (build("label-efficiency", results, Options(intervals=kind)) for kind in ("beside", "none"))
    assert "95 % interval" in with_them.caption and "95 % interval" not in without.caption
    assert "Mean over seeds (n = 3), no interval." in without.caption
    for before, after in zip(with_them.cells, without.cells, strict=True):
        for one, other in zip(before, after, strict=True):
            assert one is not None and other is not None and (one.value, one.best) == (other.value, other.best)
            assert other.low is None and other.high is None
    assert "[" not in "".join(body(render(without, "latex")))


def test_differences_lose_their_intervals_too(tmp_path: Path) -> None:
    for seed in range(3):
        simulate.finetune(tmp_path, seed=seed, history=False)
        simulate.finetune(tmp_path, seed=seed, variant="no dropout", history=False)
    table = build("ablation", collect(tmp_path)[0], Options(intervals="none"))
    assert "[" not in "".join(body(render(table, "latex"))) and "intervals" not in " ".join(table.notes)
    assert "p by" in table.notes[0]


WIDTHS = {
    "none": Options(intervals="none"),
    "below, two columns a part": Options(intervals="below", split=2),
    "below, two digits": Options(intervals="below", digits=2),
}


@pytest.mark.parametrize("form", ["latex", "siunitx"])
def test_narrow_tables_fit_one_column_of_two(form: str, results: pa.Table, tmp_path: Path) -> None:
    packages = "booktabs" if form == "latex" else "booktabs,siunitx"
    tables = [render(build("label-efficiency", results, options), form) for options in WIDTHS.values()]
    below = render(dataclasses.replace(NEGATIVE, below=True, narrow=True, split=1), form)
    assert "Overfull" not in compiled(tmp_path, "\n".join([*tables, below]), packages=packages)


def test_a_table_that_does_not_fit_is_noticed(results: pa.Table, tmp_path: Path) -> None:
    wide = render(build("label-efficiency", results, Options()), "latex")
    assert "Overfull" in compiled(tmp_path, wide), "or the test above could not fail"


def test_other_formats_take_neither_parts_nor_intervals_below(results: pa.Table) -> None:
    for options in (Options(split=2), Options(intervals="below")):
        with pytest.raises(InputError, match="for the formats latex and siunitx, not for csv"):
            render(build("label-efficiency", results, options), "csv")
