"""The page at the end of a study: its stages, then the report of its results."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from jobs._study.file import Study, fill
from jobs._study.folder import StudyFolder
from jobs._study.standing import Standing, shown_path, spoken

RUNS = ("pretrain", "finetune", "sweep", "evaluate")
"""Commands that leave results."""


def words_of(study: Study, folder: StudyFolder, standings: Sequence[Standing], *, made: bool = False) -> list[str]:
    """Return the words of the `cxrdist report` that makes the page, without its stages.

    Args:
        study: with its values.
        folder: of the study.
        standings: of its stages.
        made: the command runs when every stage is complete, so that runs outside the folder count that are not there
            yet.
    """
    known = study.known(str(folder.path))
    outside = [found.plan.work.folder for found in standings if found.plan.words[0] in RUNS]
    places = [str(folder.path), *(str(path) for path in outside if not path.is_relative_to(folder.path))]
    places = [place for place in dict.fromkeys(places) if made or Path(place).is_dir() or place == str(folder.path)]
    words = [fill(word, known) for word in study.report]
    return ["report", *places, "--out", str(folder.page), "--title", study.title, *words]


def write(study: Study, folder: StudyFolder, standings: Sequence[Standing]) -> str:
    """Write DIR/report.html and return one line about it.

    Raises:
        InputError: the study's report options cannot be used, or the page cannot be written.
    """
    from jobs import cli
    from jobs.report import options_of
    from results.errors import InputError
    from results.report.report import write_report

    config = cli.parse("report", words_of(study, folder, standings)[1:])
    stages = ("stages", "Stages", section(study, folder, standings))
    if not any(found.state == "complete" and found.plan.words[0] in RUNS for found in standings):
        return _stages_only(study, folder, stages, "No stage that leaves results is complete.")
    try:
        left_out = write_report(config.inputs, folder.page, study.title, options_of(config), first=[stages])
    except InputError as error:
        return _stages_only(study, folder, stages, f"The results cannot be shown: {error}")
    more = f" ({len(left_out)} tables or figures do not fit these results; the page says why)" if left_out else ""
    return f"{shown_path(folder.page)}{more}"


def section(study: Study, folder: StudyFolder, standings: Sequence[Standing]) -> str:
    """Return the HTML of what was run."""
    from results.report import page

    rows = []
    for found in standings:
        record = folder.record(found.name)
        took = spoken(record["seconds"]) if record.get("seconds") else ""
        cpu = spoken(record["cpu_seconds"]) if record.get("cpu_seconds") else ""
        rows.append((found.name, found.about, found.state, took, cpu, record.get("machine", "")))
    values = [(name, value) for name, value in study.values.items()]
    commands = "\n".join(found.shown for found in standings)
    return "\n".join([
        page.grid(("Stage", "What", "State", "Wall time", "CPU time", "Machine"), rows),
        page.details("Commands", page.code(commands)),
        page.details("Values (--set)", page.facts(values)) if values else "",
        page.details("study.toml", page.code(study.text)),
    ])  # fmt: skip


def _stages_only(study: Study, folder: StudyFolder, stages: tuple[str, str, str], why: str) -> str:
    from results import atomic
    from results.report import page
    from results.report.sections import RESEARCH_ONLY

    lead = page.paragraph(why) + f'<p class="warning">{html.escape(RESEARCH_ONLY)}</p>'
    atomic.write_text(folder.page, page.page(study.title, [stages], lead))
    return f"{shown_path(folder.page)} (its stages only: {why.rstrip('.')})"
