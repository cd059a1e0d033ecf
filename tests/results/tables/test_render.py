"""Tables as Markdown, LaTeX, CSV and HTML: every format can be read, and says the same."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pytest

from results.cells.options import Options
from results.tables.latex import WIDE
from results.tables.registry import TABLES, build
from results.tables.render import render
from tests.results.grids import grid


class _Cells(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.data = 0

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.open.append(tag)
        self.data += tag == "td"

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("name", [name for name in TABLES if name != "ablation"])
def test_every_table_renders_in_every_format(name: str, results: pa.Table) -> None:
    table = build(name, results, Options())
    count = len(table.row_names) * len(table.column_names)
    markdown = [line for line in render(table, "markdown").splitlines() if line.startswith("|")]
    assert len(markdown) == len(table.row_names) + 2 and len({line.count("|") for line in markdown}) == 1
    latex = render(table, "latex")
    body = latex[latex.index(r"\midrule") : latex.index(r"\bottomrule")].splitlines()
    rows = [line for line in body if line.endswith(r"\\")]
    ampersands = len(table.row_titles) + len(table.column_names) - 1
    assert len(rows) == len(table.row_names) and {line.count(" & ") for line in rows} == {ampersands}
    assert latex.count("{") == latex.count("}")
    assert len(list(csv.reader(io.StringIO(render(table, "csv"))))) == count + 1
    parser = _Cells()
    parser.feed(render(table, "html"))
    assert parser.open == [] and parser.data == count


def test_csv_keeps_all_digits(results: pa.Table) -> None:
    table = build("label-efficiency", results, Options(test=False, digits=1))
    rows = list(csv.DictReader(io.StringIO(render(table, "csv"))))
    assert [float(row["value"]) for row in rows] == [cell.value for line in table.cells for cell in line if cell]


def test_special_letters_survive_latex_and_html(tmp_path: Path) -> None:
    table = build("label-efficiency", grid(tmp_path, **{"50%_a&b<c>#{x}|": {}}), Options(test=False))
    assert r"50\%\_a\&b\textless{}c\textgreater{}\#\{x\}" in render(table, "latex")
    assert "50%_a&amp;b&lt;c&gt;#{x}|" in render(table, "html")
    assert r"#{x}\|" in render(table, "markdown")


def compiled(tables: Sequence[str], packages: str, folder: Path) -> str:
    """What pdflatex says of a paper that holds the tables; the test is skipped where a package is missing."""
    pdflatex, found = shutil.which("pdflatex"), shutil.which("kpsewhich")
    if not pdflatex or not found:
        pytest.skip("TeX: no pdflatex here (Debian: texlive-latex-recommended)")
    for package, debian in (("booktabs", "texlive-latex-recommended"), ("siunitx", "texlive-science")):
        if package in packages and not subprocess.run([found, f"{package}.sty"], capture_output=True).stdout:
            pytest.skip(f"TeX: no {package} here (Debian: {debian})")
    document = f"\\documentclass{{article}}\n\\usepackage{{{packages}}}\n\\begin{{document}}\n%s\n\\end{{document}}\n"
    (folder / "paper.tex").write_text(document % "\n".join(tables), encoding="utf-8")
    done = subprocess.run(
        [pdflatex, "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
        cwd=folder,
        capture_output=True,
        timeout=120,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert (folder / "paper.pdf").read_bytes().startswith(b"%PDF")
    return done.stdout


def test_latex_compiles(results: pa.Table, tmp_path: Path) -> None:
    names = ("label-efficiency", "models", "cost")
    compiled([render(build(name, results, Options()), "latex") for name in names], "booktabs", tmp_path)


def test_siunitx_compiles_with_intervals_standard_deviations_differences_and_gaps(
    results: pa.Table, tmp_path: Path
) -> None:
    asked = {
        "label-efficiency": [Options(), Options(style="mean-sd"), Options(difference="scratch")],
        "transfer": [Options(difference="scratch", where=("label_fraction=1",)), Options(digits=1)],
        "per-class": [Options(style="mean-sd")],
        "models": [Options()],
        "cost": [Options()],
    }
    tables = [
        render(build(name, results, options), "siunitx") for name, several in asked.items() for options in several
    ]
    said = compiled(tables, "booktabs,siunitx", tmp_path)
    assert "siunitx Error" not in said and "siunitx Warning" not in said


def test_wide_tables_are_set_smaller_in_latex(results: pa.Table) -> None:
    for name in ("models", "label-efficiency"):
        table = build(name, results, Options(test=False))
        wide = len(table.row_titles) + len(table.column_names) > WIDE
        smaller = r"\footnotesize\setlength{\tabcolsep}{4pt}"
        assert (smaller in render(table, "latex")) == wide
        assert smaller in render(build(name, results, Options(test=False, intervals="none")), "latex")
