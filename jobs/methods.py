"""`cxrdist methods RUNS`: a paragraph for the paper's methods section and its BibTeX, from the files of the runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

HELP = "Write a paragraph for a paper's methods section, and its BibTeX, from the runs."
POSITIONALS = ("inputs",)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Of which runs, and where to."""

    inputs: list[str]
    """Folders of runs, runs, or files from `cxrdist collect`; pretraining runs too, if they are to be described."""
    cite: Literal["markdown", "latex"] = "markdown"
    """How the text cites: [@key], which pandoc reads, or \\cite{key}."""
    out: str | None = None
    """File for the text; None = stdout."""
    bib: str | None = None
    """File for the BibTeX; None = stdout, behind the text."""
    where: str | None = None
    """Filters with blanks between, e.g. "mode=full"; None = all runs."""


def run(config: Config) -> None:
    """Collect, write, and say where."""
    import sys
    from pathlib import Path

    from results.light import without_pandas

    without_pandas()
    from results.atomic import write_text
    from results.cells.options import Options, filters
    from results.errors import InputError
    from results.report.methods import methods
    from results.report.report import chosen
    from results.report.sections import runs_of
    from results.stats.rescore import open_results

    if config.out is not None and config.bib is not None and Path(config.out).resolve() == Path(config.bib).resolve():
        raise InputError(f"--out and --bib name the same file {config.out}; the text and its BibTeX need one each")
    results, warnings = open_results(config.inputs)
    if warnings:
        print(f"note: {warnings[0]}" + (f" (and {len(warnings) - 1} more)" if warnings[1:] else ""), file=sys.stderr)
    results, _ = chosen(results, Options(where=filters(config.where)))
    found = methods(results, runs_of(results), config.cite)
    for text, out in ((found.text, config.out), (found.bibtex, config.bib)):
        if out is None:
            print(text)
        else:
            write_text(Path(out), text)
            print(out)
