"""The report of a study: data, tables, figures, configurations, provenance and limits in one HTML file."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)
from __future__ import annotations

import dataclasses
import html
import io
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from results import atomic
from results.cells.options import Options
from results.cells.select import ALLOWANCES, matching
from results.collect import COST_METRIC
from results.errors import InputError
from results.figures import registry as figures
from results.figures.style import styled
from results.levels import LEVELS
from results.provenance import now
from results.report import datasets, methods, page, sections
from results.report.sections import RESEARCH_ONLY, runs_of
from results.run import Run
from results.stats.rescore import open_results
from results.tables import registry as tables
from results.tables.render import render
from results.wording import count, listing


def write_report(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    title: str,
    options: Options | None = None,
    first: Sequence[tuple[str, str, str]] = (),
) -> list[str]:
    """Collect `inputs` and write the report.

    Args:
        inputs: folders of runs, runs or collected files.
        out: the HTML file.
        title: its heading.
        options: `where` chooses the runs that it is about, with the pretraining runs that they started from; `labels`
            and `allow` are those of every table and figure. None takes everything.
        first: sections before all others: anchor, heading, HTML.

    Returns:
        Why tables and figures that do not fit these results were left out.

    Raises:
        InputError: no results, images and studies of one test set, or `out` cannot be written.
    """
    options = options or Options()
    wanted = [text.partition("=")[2] for text in options.where if text.startswith("level=")]
    results, warnings = open_results(inputs, wanted[0] if wanted and wanted[0] in LEVELS else None)
    results, options = chosen(results, options)
    if "levels" not in options.allow:
        _refuse_levels(results)
    left_out: list[str] = []
    runs = runs_of(results)
    parts = [
        *first,
        ("datasets", "Datasets", datasets.section(results, runs)),
        ("tables", "Tables", _tables(results, options, left_out)),
        ("figures", "Figures", _figures(results, options, left_out)),
        ("methods", "Methods", _methods(results, runs)),
        ("configurations", "Configurations", sections.configurations(results)),
        ("provenance", "Provenance", sections.provenance(results, runs, warnings)),
        ("limits", "Limits", sections.limits(results, runs, warnings, left_out)),
    ]
    atomic.write_text(Path(out), page.page(title, parts, _lead(results, options)))
    return left_out


def chosen(results: pa.Table, options: Options) -> tuple[pa.Table, Options]:
    """The rows that the filters choose, those of the pretraining runs behind them, and the options that are left."""
    on_labels = tuple(text for text in options.where if text.partition("=")[0].strip() == "label")
    where = tuple(text for text in options.where if text not in on_labels)
    if where:
        kept = matching(results.filter(pc.is_valid(results["label"])), where)
        used = pc.unique(kept["init_signature"]).drop_null()
        cost = (pc.field("metric") == COST_METRIC) & pc.field("signature").isin(used)
        results = pa.concat_tables([kept, results.filter(cost)])
    return results, Options(where=on_labels, labels=options.labels, allow=options.allow)


def _methods(results: pa.Table, runs: dict[str, Run]) -> str:
    """The paragraph for a paper, as text, with its BibTeX folded away."""
    found = methods.methods(results, runs)
    paragraphs = "".join(page.paragraph(text) for text in found.text.strip().split("\n\n"))
    return paragraphs + page.details("BibTeX of what is cited", page.code(found.bibtex))


def _refuse_levels(results: pa.Table) -> None:
    """Refuse images and studies on one test set here, once, instead of in every table and figure."""
    pairs = results.select(["test_dataset", "level"]).filter(pc.is_valid(results["level"]))
    found = pairs.group_by(["test_dataset", "level"]).aggregate([]).to_pylist()
    counts = Counter(row["test_dataset"] for row in found)
    for dataset, number in counts.items():
        if number > 1:
            held = sorted(row["level"] for row in found if row["test_dataset"] == dataset)
            raise InputError(
                f"results on {dataset} are of several levels ({', '.join(held)}); choose one with --level {held[0]}, or"
                " have rows of their own with --allow levels"
            )


def _lead(results: pa.Table, options: Options) -> str:
    runs = len(set(results["source"].to_pylist()))
    allowed = [ALLOWANCES.get(word, word) for word in options.allow]
    return (
        page.paragraph(f"{count(runs, 'run')}, {len(results):,} numbers; written {now()} by cxrdist.")
        + (page.paragraph(f"Allowed on request: {listing(allowed)}.") if allowed else "")
        + f'<p class="warning">{html.escape(RESEARCH_ONLY)}</p>'
    )


def _tables(results: pa.Table, options: Options, left_out: list[str]) -> str:
    parts = []
    for name in tables.TABLES:
        if repeated := tables.repeats(name, results):
            left_out.append(f"table {name}: {repeated}")
            continue
        _show_progress(f"table {name}")
        table = _attempt(f"table {name}", left_out, lambda name=name: tables.build(name, results, options))
        if table is not None:
            parts.append(render(table, "html"))
    return "\n".join(parts) or page.paragraph("No table fits these results; see Limits.")


def _figures(results: pa.Table, options: Options, left_out: list[str]) -> str:
    sets = sorted({value for value in results["test_dataset"].to_pylist() if value is not None})
    parts = []
    for name in figures.FIGURES:
        wheres = [(f"test_dataset={held}",) for held in sets] if figures.per_test_set(name) and len(sets) > 1 else [()]
        for where in wheres:
            _show_progress(f"figure {name}")
            what = f"figure {name}" + (f" ({where[0]})" if where else "")
            one = dataclasses.replace(options, where=(*options.where, *where))
            drawing = _attempt(what, left_out, lambda name=name, one=one: figures.draw(name, results, one))
            if drawing is None:
                continue
            out = io.BytesIO()
            with styled():
                drawing.figure.savefig(out, format="png", dpi=130, metadata={"Software": None})
            anchor = name + (f"-{where[0].partition('=')[2]}" if where else "")
            parts.append(page.picture(out.getvalue(), anchor, drawing.caption))
    return "\n".join(parts) or page.paragraph("No figure fits these results; see Limits.")


def _attempt(what: str, left_out: list[str], make: Callable[[], Any]) -> Any:
    """What `make` returns, or None with the reason noted when these results do not suit it."""
    try:
        return make()
    except InputError as error:
        left_out.append(f"{what}: {error}")
        return None


def _show_progress(what: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{what:40}", end="", file=sys.stderr, flush=True)
