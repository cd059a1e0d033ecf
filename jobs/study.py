"""`cxrdist study run|status|report`: a whole study from one file, on this machine or on SLURM."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jobs._study.file import Study, fill
from jobs._study.folder import StudyFolder, go_to, open_study
from jobs._study.standing import Standing, look, shown_path, spoken, totals
from slurm.errors import InputError

if TYPE_CHECKING:
    from jobs import _chain

HELP = "run a whole study from one file, here or on SLURM; its status; its report"
USAGE = """\
usage: cxrdist study run STUDY --out DIR [--set NAME=VALUE ...] [--dry_run]
       cxrdist study run STUDY --out DIR --profile NAME [submit's options] [--dry_run]
       cxrdist study status DIR [--json]
       cxrdist study report DIR

STUDY is a TOML file of stages (docs/study.md), or the name of one that comes with cxrdist: {names}.

  --out       folder of the study; the same command again goes on from what is complete
  --set       values that the file asks for, or has defaults for
  --profile   queue the stages as SLURM jobs instead of running them here (a name or a .toml file)
  --dry_run   print every command, its state and what is known of its cost; run and write nothing
  --json      one JSON object per stage, for programs
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Words of `cxrdist study`."""

    words: list[str]
    """run, status or report, and what follows."""


POSITIONALS = ("words",)


def main(words: Sequence[str]) -> int:
    """Run `cxrdist study WORDS`."""
    if not words or words[0] in ("-h", "--help") or "--help" in words[1:]:
        from jobs._study.file import PACKAGED

        print(USAGE.format(names=", ".join(sorted(path.stem for path in PACKAGED.glob("*.toml")))))
        return 0 if words else 2
    verb, *rest = words
    if verb == "run":
        return _run(rest)
    if verb in ("status", "report"):
        return (_status if verb == "status" else _report)(rest)
    from slurm.chain import meant

    raise InputError(f"cxrdist study: {verb!r} is not run, status or report{meant(verb, ('run', 'status', 'report'))}")


def run(config: Config) -> int:
    """Run the words of a parsed configuration."""
    return main(config.words)


def _run(words: Sequence[str]) -> int:
    from jobs import _tasks
    from jobs._study.file import find, load, pairs
    from jobs.status import Parser

    own, rest = _tasks.split(words)
    parser = Parser("study run", HELP)
    parser.add_argument("study")
    parser.add_argument("--out", required=True)
    parser.add_argument("--set", nargs="+", action="extend", default=[])
    asked = parser.parse_args(rest)
    if not asked.out.strip() or "\0" in asked.out:
        raise InputError("--out is empty (a variable that is not set?); name a folder")
    dry_run = _tasks.where({"dry_run": own.get("dry_run", "false")}).dry_run
    if only := [key for key in own if key not in ("profile", "dry_run")]:
        if "profile" not in own:
            raise InputError(f"--{only[0]} is of SLURM jobs: give --profile as well, or leave it out")
    folder = StudyFolder(Path(asked.out).expanduser().absolute())
    if os.path.isfile(own.get("profile", "")):  # it is meant from here, not from where the study was begun
        own["profile"] = os.path.abspath(own["profile"])
    held = folder.held()
    study = load(find(asked.study), pairs(asked.set), chosen=held.get("study", {}).get("set"))
    return carry_out(study, folder, own, dry_run=dry_run)


def carry_out(study: Study, folder: StudyFolder, own: dict[str, str], *, dry_run: bool = False) -> int:
    """Run or queue what is not complete of a study.

    Args:
        study: with its values.
        folder: where; new, empty, or this study's.
        own: options of submit; with a profile among them the stages become SLURM jobs.
        dry_run: only say what would be done.

    Returns:
        0 all complete (or queued), 1 a stage failed, 130 stopped.

    Raises:
        InputError: the folder is another study's or busy, or a stage cannot be run as it stands.
    """
    new = folder.check(study)
    go_to(folder.held().get("folder", os.getcwd()))
    here = "profile" not in own
    if dry_run:
        standings = look(study, folder, own, here=here)
        _show(standings, own)
        return 0
    look(study, folder, own, here=here)  # what cannot be run is refused before anything is written
    folder.make()
    with folder.alone():
        new = folder.check(study)  # again: another command may have begun its study here a moment ago
        folder.freeze(study)
        standings = look(study, folder, own, here=here, held=True)
        if new and folder.log(new[0]).parent.is_dir():
            print(f"new in this study: {', '.join(new)}")
        if not here:
            return _queue(study, folder, standings, own)
        _refuse_queued(standings)
        return _run_here(study, folder, standings)


def _refuse_queued(standings: Sequence[Standing]) -> None:
    """Refuse to run here what a SLURM job of the same study is going to run, or runs now.

    Raises:
        InputError: naming the stage and its job.
    """
    from slurm import client, jobs_file
    from slurm.errors import FailedError

    for found in standings:
        if found.state == "complete":
            continue
        work = found.plan.work.folder
        for name in ("submission", "submission-merge"):
            jobs = jobs_file.job_ids(work / name)
            with contextlib.suppress(FailedError):  # a machine without SLURM: its jobs are of another one
                if busy := client.active(jobs):
                    raise InputError(
                        f"stage {found.name} is in the queue as job {busy[-1].job_id}; wait for it, give --profile, or "
                        f"cxrdist cancel {shown_path(work)}"
                    )


def _run_here(study: Study, folder: StudyFolder, standings: Sequence[Standing]) -> int:
    from jobs._study import report
    from jobs._study.here import run_stages

    print(f"{study.title}, in {shown_path(folder.path)}: {totals(standings)}", flush=True)
    code = run_stages(standings, folder)
    if code:
        return code
    stale = not folder.page.is_file() or any(found.state != "complete" for found in standings)
    if stale:
        report.write(study, folder, look(study, folder, held=True))
    known = study.known(shown_path(folder.path))
    for text in study.show:
        print(f"\n{_text_at(fill(text, known))}")
    records = [folder.record(found.name) for found in standings]
    took = sum(record.get("seconds") or 0 for record in records)
    print(f"\n{study.title}: complete; its stages took {spoken(took)} in all. Report: {shown_path(folder.page)}")
    if study.closing:
        print(fill(study.closing, known).rstrip())
    return 0


def _text_at(path: str) -> str:
    """A text that a study shows at its end; a line instead of it where no stage made it."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").rstrip()
    except OSError as error:
        return f"{path} cannot be shown: {error.strerror}"


def _queue(study: Study, folder: StudyFolder, standings: Sequence[Standing], own: dict[str, str]) -> int:
    from jobs import _chain

    _chain.queue(_with_report(study, folder, standings, own))
    shown = shown_path(folder.path)
    print(f"cxrdist study status {shown} shows every stage; cxrdist study report {shown} writes the report at any time")
    return 0


def _with_report(
    study: Study, folder: StudyFolder, standings: Sequence[Standing], own: dict[str, str]
) -> list[_chain.Planned]:
    """The stages as jobs, and after them the report where there is something to report on."""
    from jobs import _chain
    from jobs._study import report
    from slurm.chain import Stage

    plans = [found.plan for found in standings]
    names = [plan.name for plan in plans]
    if "report" in names or not any(plan.words[0] in report.RUNS for plan in plans):
        return plans
    last = Stage(name="report", words=tuple(report.words_of(study, folder, standings, made=True)))
    options = {key: value for key, value in own.items() if key in ("profile", "partition", "dry_run", "time")}
    [planned] = _chain.plan_stages([last], options, str(study.path), folder_of=folder.stage)
    complete = planned.complete and all(plan.complete for plan in plans)
    return [*plans, dataclasses.replace(planned, needs=tuple(names), complete=complete)]


def _show(standings: Sequence[Standing], own: dict[str, str]) -> None:
    """Print what a run would do."""
    if "profile" in own:
        from jobs import _chain

        _chain.queue([found.plan for found in standings])
        return
    for position, found in enumerate(standings):
        why = f" ({found.why})" if found.why else ""
        print(
            f"# [{position + 1}/{len(standings)}] {found.name}: {found.state}{why}; {found.cost or 'no recorded cost'}"
        )
        print(f"$ {found.shown}\n")
    print(totals(standings))


def _status(words: Sequence[str]) -> int:
    from jobs.status import Parser

    parser = Parser("study status", HELP)
    parser.add_argument("folder")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(list(words))
    folder, study = open_study(asked.folder)
    standings = look(study, folder)
    facts = [_fact(found, folder) for found in standings]
    for fact in facts:
        if asked.json:
            print(json.dumps(fact))
        else:
            more = ", ".join(text for text in (fact["why"], fact["cost"], fact["job"]) if text)
            print(f"{fact['stage']:<20} {fact['state']:<9} {more}".rstrip())
    if not asked.json:
        page = f"; report: {shown_path(folder.page)}" if folder.page.is_file() else ""
        print(f"{totals(standings)}{page}")
    return 1 if any(fact["state"] in ("failed", "blocked") for fact in facts) else 0


def _fact(found: Standing, folder: StudyFolder) -> dict[str, str]:
    """What is known of a stage, its SLURM job included."""
    from jobs import status

    state, why, job = str(found.state), found.why, ""
    if found.state != "complete" and (status.submission(found.plan.work.folder, must=False) / "jobs.json").is_file():
        told = status.describe(found.plan.work.folder, found.name)
        state, job = _state_of_job(str(told["state"]), state), f"job {told['job']}: {told['state']}"
    return {
        "stage": found.name, "state": state, "why": why, "cost": found.cost if state != "running" else "", "job": job,
        "command": found.shown, "log": str(folder.log(found.name)),
    }  # fmt: skip


def _state_of_job(told: str, otherwise: str) -> str:
    from jobs.status import FAILURES

    if told in FAILURES:
        return "failed"
    return {"RUNNING": "running", "PENDING": "queued"}.get(told, otherwise)


def _report(words: Sequence[str]) -> int:
    from jobs._study import report
    from jobs.status import Parser

    parser = Parser("study report", HELP)
    parser.add_argument("folder")
    folder, study = open_study(parser.parse_args(list(words)).folder)
    print(report.write(study, folder, look(study, folder)))
    return 0


if __name__ == "__main__":
    from jobs import cli

    sys.exit(cli.main(["study", *sys.argv[1:]]))
