"""The sections of a report beside datasets, tables and figures: configurations, provenance, limits."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from results import configs
from results.cells import config_keys
from results.provenance import versions
from results.report import page
from results.report.datasets import read
from results.run import Run
from results.schema import Row
from results.wording import count, listing


def runs_of(results: pa.Table) -> dict[str, Run]:
    """Run folders by path, as far as they are still there."""
    found: dict[str, Run] = {}
    for source in sorted(set(results["source"].to_pylist())):
        path = Path(source)
        run = Run(path.parent if path.name == "run.json" else path.parent.parent)
        if run.info.is_file():
            found[str(run.path)] = run
    return found


def configurations(results: pa.Table) -> str:
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
        varied = config_keys.varied(settings)
        shared = sorted((key, config_keys.spell(value)) for held in settings[:1] for key, value in held.items())
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


def provenance(results: pa.Table, runs: dict[str, Run], warnings: Sequence[str]) -> str:
    """Commits, hosts, versions and command lines of the runs, and what was skipped in collecting them."""
    commits = Counter(str(value) for value in results["git_commit"].to_pylist())
    infos = {path: read(run.read_info) for path, run in runs.items()}
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


RESEARCH_ONLY = "Research use only: nothing here is made or tested for clinical decisions."


def limits(results: pa.Table, runs: dict[str, Run], warnings: Sequence[str], left_out: Sequence[str]) -> str:
    """What the numbers do not say, and what does not fit these results."""
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
