"""All stages of a study on this machine, one after the other."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from jobs import _chain
from jobs._study.folder import StudyFolder, machine
from jobs._study.follow import STOPPED, Asked, follow
from jobs._study.standing import Standing, shown_path, spoken
from results.provenance import now

REFUSED = 2
"""Exit code of a command whose input cannot be used: nothing was done."""
FORMAT_VERSION = 1
"""Version of a stage's record."""


def run_stages(standings: Sequence[Standing], folder: StudyFolder) -> int:
    """Run what is not complete; what needs a failed stage is left out, everything else goes on.

    Returns:
        0 when every stage is complete, 1 when one failed, 130 when asked to stop.
    """
    failed: dict[str, Standing] = {}
    blocked: dict[str, list[str]] = {}
    plans = [found.plan for found in standings]
    asked = Asked()
    for position, found in enumerate(standings):
        title = f"\n# [{position + 1}/{len(standings)}] {found.name}" + (f": {found.about}" if found.about else "")
        causes = [need for need in found.plan.needs if need in failed or need in blocked]
        if causes:
            blocked[found.name] = causes
            continue
        if found.state == "complete":
            print(f"{title.lstrip()} (complete)", flush=True)
            continue
        print(f"{title}\n$ {found.shown}", flush=True)
        _chain.unmark(plans, found.name)
        with asked.listening():
            code, seconds = _run(found, folder, asked)
        if asked.times:
            print(
                f"\ncxrdist: stopped in stage {found.name}; the same study command goes on from what is complete",
                file=sys.stderr,
            )
            return STOPPED
        print(f"# {'done' if code == 0 else f'failed (exit code {code})'} in {spoken(seconds)}", flush=True)
        if code:
            failed[found.name] = found
    return _sum_up(failed, blocked, folder)


def _run(found: Standing, folder: StudyFolder, asked: Asked) -> tuple[int, float]:
    """Run one stage and keep its record: exit code, seconds of this attempt."""
    held = folder.record(found.name)
    goes_on = held.get("state") in ("stopped", "running", "failed") and held.get("code") != REFUSED
    begun = goes_on and held.get("identity") == found.identity  # what earlier attempts took belongs to its cost
    before = {key: float(held.get(key) or 0) if begun else 0.0 for key in ("seconds", "cpu_seconds")}
    facts = {
        "format_version": FORMAT_VERSION, "stage": found.name, "state": "running", "command": found.shown,
        "identity": found.identity, "machine": machine(), "started_at": now(), **before,
    }  # fmt: skip
    folder.write_record(found.name, facts)
    started, used = time.monotonic(), _cpu_seconds()
    heading = f"{facts['started_at']} $ {found.shown}"
    code = follow(found.plan.words, folder.log(found.name), folder.stage_lock, heading, asked)
    seconds = time.monotonic() - started
    state = "done" if code == 0 else ("stopped" if asked.times else "failed")
    if state == "done":
        _mark(found)
    folder.write_record(found.name, facts | {
        "state": state, "code": code, "ended_at": now(), "seconds": round(before["seconds"] + seconds, 2),
        "cpu_seconds": round(before["cpu_seconds"] + _cpu_seconds() - used, 2),
    })  # fmt: skip
    return code, seconds


def _mark(found: Standing) -> None:
    """Leave the mark that a job of this stage would have left, so that here and on SLURM the same is complete."""
    for task in found.plan.work.tasks[-1:]:
        if task.mark:
            Path(task.mark).parent.mkdir(parents=True, exist_ok=True)
            Path(task.mark).touch()
            os.utime(task.mark)


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _sum_up(failed: dict[str, Standing], blocked: dict[str, list[str]], folder: StudyFolder) -> int:
    for name, found in failed.items():
        print(f"\ncxrdist: stage {name} failed; its log is {shown_path(folder.log(name))}; to repeat it alone:",
              f"    {found.shown}", sep="\n", file=sys.stderr)  # fmt: skip
    for name, causes in blocked.items():
        print(f"cxrdist: stage {name} was not run: it needs {', '.join(causes)}", file=sys.stderr)
    if failed:
        print("cxrdist: when the cause is fixed, the same study command goes on from what is complete", file=sys.stderr)
    return 1 if failed else 0
