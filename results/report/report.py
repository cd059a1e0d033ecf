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

from results import atomic, configs
from results.cells.display import count, listing
from results.cells.options import Options
from results.cells.select import ALLOWANCES, Row, matching
from results.collect import COST_METRIC, open_results
from results.errors import InputError
from results.figures import registry as figures
from results.figures.style import styled
from results.levels import LEVELS
from results.provenance import now, versions
from results.report import datasets, page
from results.run import Run
from results.schema import MACRO
from results.tables import registry as tables
from results.tables.render import render

PER_TEST_SET = ("per-class", "roc", "precision-recall", "confusion", "calibration", "threshold-sweep")
"""Figures that are drawn once for each test set."""

RESEARCH_ONLY = "Research use only: nothing here is made or tested for clinical decisions."


def write_report(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    title: str,
    options: Options | None = None,
) -> list[str]:
    """Collect `inputs` and write the report.

    Args:
        inputs: folders of runs, runs or collected files.
        out: the HTML file.
        title: its heading.
        options: `where` chooses the runs that it is about, with the pretraining runs that they started from; `labels`
            and `allow` are those of every table and figure. None takes everything.

    Returns:
        Why tables and figures that do not fit these results were left out.

    Raises:
        InputError: no results, images and studies of one test set, or `out` cannot be written.
    """
    options = options or Options()
    wanted = [text.partition("=")[2] for text in options.where if text.startswith("level=")]
    results, warnings = open_results(inputs, wanted[0] if wanted and wanted[0] in LEVELS else None)
    results, options = _chosen(results, options)
    if "levels" not in options.allow:
        _refuse_levels(results)
    left_out: list[str] = []
    runs = _runs(results)
    sections = [
        ("datasets", "Datasets", datasets.section(results, runs)),
        ("tables", "Tables", _tables(results, options, left_out)),
        ("figures", "Figures", _figures(results, options, left_out)),
        ("configurations", "Configurations", _configurations(results)),
        ("provenance", "Provenance", _provenance(results, runs, warnings)),
        ("limits", "Limits", _limits(results, runs, warnings, left_out)),
    ]
    atomic.write_text(Path(out), page.page(title, sections, _lead(results, options)))
    return left_out


def _chosen(results: pa.Table, options: Options) -> tuple[pa.Table, Options]:
    """The rows that the filters choose, those of the pretraining runs behind them, and the options that are left."""
    on_labels = tuple(text for text in options.where if text.partition("=")[0].strip() == "label")
    where = tuple(text for text in options.where if text not in on_labels)
    if where:
        kept = matching(results.filter(pc.is_valid(results["label"])), where)
        used = pc.unique(kept["init_signature"]).drop_null()
        cost = (pc.field("metric") == COST_METRIC) & pc.field("signature").isin(used)
        results = pa.concat_tables([kept, results.filter(cost)])
    return results, Options(where=on_labels, labels=options.labels, allow=options.allow)


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


def _runs(results: pa.Table) -> dict[str, Run]:
    """Run folders by path, as far as they are still there."""
    found: dict[str, Run] = {}
    for source in sorted(set(results["source"].to_pylist())):
        path = Path(source)
        run = Run(path.parent if path.name == "run.json" else path.parent.parent)
        if run.info.is_file():
            found[str(run.path)] = run
    return found


def _tables(results: pa.Table, options: Options, left_out: list[str]) -> str:
    parts = []
    for name in tables.NAMES:
        if repeated := _repeats(name, results):
            left_out.append(f"table {name}: {repeated}")
            continue
        _tell(f"table {name}")
        table = _attempt(f"table {name}", left_out, lambda name=name: tables.build(name, results, options))
        if table is not None:
            parts.append(render(table, "html"))
    return "\n".join(parts) or page.paragraph("No table fits these results; see Limits.")


def _repeats(name: str, results: pa.Table) -> str | None:
    """Why a table would only print another one again; None where it adds something."""
    held = {
        column: {value for value in results[column].to_pylist() if value is not None}
        for column in ("train_dataset", "test_dataset", "label")
    }
    if name == "transfer" and len(held["train_dataset"] | held["test_dataset"]) == 1:
        return "one data set alone, so it would repeat label-efficiency"
    if name == "per-class" and len(held["label"] - {MACRO}) == 1:
        return "one label alone, so it would repeat label-efficiency"
    return None


def _figures(results: pa.Table, options: Options, left_out: list[str]) -> str:
    sets = sorted({value for value in results["test_dataset"].to_pylist() if value is not None})
    parts = []
    for name in figures.NAMES:
        wheres = [(f"test_dataset={held}",) for held in sets] if name in PER_TEST_SET and len(sets) > 1 else [()]
        for where in wheres:
            _tell(f"figure {name}")
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


def _tell(what: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{what:40}", end="", file=sys.stderr, flush=True)


def _configurations(results: pa.Table) -> str:
    """What all runs of a job share, and every setting in which they differ."""
    by_job: dict[str, dict[str, Row]] = {}
    columns = ["source", "job", "seed", configs.COLUMN]
    for row in results.select(columns).group_by(columns).aggregate([]).to_pylist():
        if row["job"] != "evaluate":  # of a run that is there itself
            by_job.setdefault(str(row["job"]), {})[row["source"]] = row
    parts = []
    for job, rows in sorted(by_job.items()):
        known = {path: configs.config_of(row) for path, row in rows.items()}
        settings = [{**held, "seed": rows[path]["seed"]} for path, held in known.items() if held is not None]
        varied = configs.varied(settings)
        shared = sorted((key, configs.spell(value)) for held in settings[:1] for key, value in held.items())
        parts.append(f"<h3>{html.escape(job)} ({count(len(rows), 'run')})</h3>")
        if len(settings) < len(rows):
            missing = len(rows) - len(settings)
            parts.append(page.paragraph(f"The configuration of {count(missing, 'run')} is not recorded.", "note"))
        if varied:
            pairs = [(key, _values(values)) for key, values in varied.items()]
            parts.append(page.paragraph("What was varied (runs):") + page.facts(pairs))
        parts.append(page.details("What all of them share", page.facts([kv for kv in shared if kv[0] not in varied])))
    return "\n".join(parts) or page.paragraph("No configuration is recorded.")


_MOST_VALUES = 12


def _values(values: Counter[str]) -> str:
    words = [f"{value} ({n})" for value, n in sorted(values.items())[:_MOST_VALUES]]
    return ", ".join(words) + (f" and {len(values) - _MOST_VALUES} more" if len(values) > _MOST_VALUES else "")


def _provenance(results: pa.Table, runs: dict[str, Run], warnings: Sequence[str]) -> str:
    commits = Counter(str(value) for value in results["git_commit"].to_pylist())
    infos = {path: _read(run.read_info) for path, run in runs.items()}
    hosts = Counter(str(info.get("host")) for info in infos.values())
    used = sorted(
        {f"{name} {version}" for info in infos.values() for name, version in info.get("versions", {}).items()}
    )
    pairs = [
        ("Commits (rows)", listing([f"{name} ({n})" for name, n in sorted(commits.items())])),
        ("Hosts (runs)", listing([f"{name} ({n})" for name, n in sorted(hosts.items())]) if hosts else "not recorded"),
        ("Versions of the runs", listing(used) if used else "not recorded"),
        ("Versions of this report", listing([f"{name} {version}" for name, version in versions().items()])),
    ]
    rows = [
        (
            Path(path).name,
            info.get("job"),
            info.get("signature"),
            info.get("created_at"),
            " ".join(info.get("command", [])),
        )
        for path, info in infos.items()
    ]
    table = page.grid(("Run", "Job", "Signature", "Created", "Command"), rows)
    skipped = (
        page.details(count(len(warnings), "note") + " while collecting", page.bullets(warnings)) if warnings else ""
    )
    return page.facts(pairs) + page.details(f"All {count(len(rows), 'run folder')}", table) + skipped


def _limits(results: pa.Table, runs: dict[str, Run], warnings: Sequence[str], left_out: Sequence[str]) -> str:
    seeds = {value for value in results["seed"].to_pylist() if value is not None}
    items = [
        RESEARCH_ONLY,
        "Intervals of one trained model are over test patients and do not include the spread over seeds; those of"
        " several seeds cover both.",
        f"{count(len(seeds), 'seed')} in all" + (": the spread over seeds is hardly known." if len(seeds) < 5 else "."),
        "Labels of public chest X-ray sets were mined from reports and are wrong in places; the numbers are measured"
        " against them.",
    ]
    commits = {value for value in results["git_commit"].to_pylist() if value}
    if len(commits) > 1:
        items.append(f"The runs come from {len(commits)} versions of the code.")
    if any(commit.endswith("-dirty") for commit in commits):
        items.append("Some runs come from code with changes that were not committed.")
    undefined = sum(v is None and m == "auroc" and s != "macro" for v, m, s in _three(results))
    if undefined:
        items.append(f"{undefined} AUROC values per label are undefined: the label lacks a class, or was not learnt.")
    if warnings:
        items.append(f"{count(len(warnings), 'note')} while collecting: runs or files were left out (see Provenance).")
    shown = page.bullets(items)
    if left_out:
        shown += page.details("Tables and figures that do not fit these results", page.bullets(left_out))
    return shown


def _three(results: pa.Table) -> Iterable[tuple[Any, Any, Any]]:
    return zip(*(results[name].to_pylist() for name in ("value", "metric", "label")), strict=True)


def _read(reader: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return reader()
    except InputError:
        return {}
