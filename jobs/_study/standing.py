"""Where each stage of a study stands, and what it will probably cost. Torch-free.

The state comes from the outputs themselves (jobs/_complete), never from the study's own records: these only tell a
stage that failed from one that was never begun, and how long it took.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from jobs import _chain
from jobs._study.file import Study, fill, fill_stages, fill_value
from jobs._study.folder import StudyFolder, machine, read_record

State = Literal["complete", "running", "failed", "blocked", "partly", "to do"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Standing:
    """One stage: its command, its state and its cost."""

    plan: _chain.Planned
    about: str
    shown: str
    """The command as a person types it, from the folder that the study was begun in."""
    state: State
    why: str
    """More of the state: which stage blocks it, how its last attempt ended."""
    seconds: float | None
    """What it took (complete), or what an equal stage took that ran to its end on this machine."""
    cost: str
    """The same in words, with where it comes from."""
    identity: str
    """Hash of its command, values and specs, and those of all that it needs; places left out."""

    @property
    def name(self) -> str:
        """The stage's."""
        return self.plan.name


def look(
    study: Study, folder: StudyFolder, own: dict[str, str] | None = None, *, here: bool = True, held: bool = False
) -> list[Standing]:
    """Return the standing of every stage, each after those that it needs; nothing is written.

    Args:
        study: with its values.
        folder: of the study, which need not exist.
        own: submit's options, where the stages are SLURM jobs.
        here: they run on this machine.
        held: this process holds the folder, so that no other one runs the study.

    Raises:
        InputError: a stage's command cannot be used, or its output is another one's.
    """
    out, shown = str(folder.path), shown_path(folder.path)
    with _specs(study, folder) as specs:
        stages = fill_stages(study, study.known(out, specs))
        planned = _chain.plan_stages(stages, own or {}, str(study.path), here=here, folder_of=folder.stage)
    typed = {stage.name: stage for stage in fill_stages(study, study.known(shown))}
    if specs != str(folder.specs):  # a rehearsal: nothing that is planned with these specs may be kept
        planned = [_respelled(plan, specs, str(folder.specs)) for plan in planned]
    identities = _identities(study)
    earlier = _earlier(folder)
    busy = not held and folder.is_busy()
    states: dict[str, State] = {}
    found = []
    for plan in planned:
        record = folder.record(plan.name)
        states[plan.name], why = _state(plan, record, states, busy)
        seconds, cost = _cost(states[plan.name], record, earlier.get(identities[plan.name]), typed[plan.name].takes)
        found.append(Standing(
            plan=plan, about=typed[plan.name].about, shown=f"cxrdist {shlex.join(typed[plan.name].words)}",
            state=states[plan.name], why=why, seconds=seconds, cost=cost, identity=identities[plan.name],
        ))  # fmt: skip
    return found


def shown_path(path: Path) -> str:
    """Return a path as a person types it here."""
    near = os.path.relpath(path)
    return str(path) if near.startswith("..") else near


def spoken(seconds: float) -> str:
    """Return a duration as people say it: 4.2 s, 45 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@contextlib.contextmanager
def _specs(study: Study, folder: StudyFolder) -> Iterator[str]:
    """The folder of the filled-in specs; one of a moment where the study has not been begun."""
    import tomli_w

    filled = {
        name: tomli_w.dumps(fill_value(table, study.known(str(folder.path)))) for name, table in study.specs.items()
    }
    places = {folder.specs / f"{name}.toml": text for name, text in filled.items()}
    if all(place.is_file() and place.read_text(encoding="utf-8") == text for place, text in places.items()):
        yield str(folder.specs)
        return
    with tempfile.TemporaryDirectory(prefix="cxrdist-") as moment:
        for name, text in filled.items():
            Path(moment, f"{name}.toml").write_text(text, encoding="utf-8")
        yield moment


def _respelled(plan: _chain.Planned, moment: str, lasting: str) -> _chain.Planned:
    def spell(words: Sequence[str]) -> tuple[str, ...]:
        return tuple(word.replace(moment, lasting) for word in words)

    tasks = [
        dataclasses.replace(task, words=spell(task.words), prepare=spell(task.prepare)) for task in plan.work.tasks
    ]
    return dataclasses.replace(plan, words=spell(plan.words), work=dataclasses.replace(plan.work, tasks=tuple(tasks)))


def _state(plan: _chain.Planned, record: dict[str, Any], states: dict[str, State], busy: bool) -> tuple[State, str]:
    if plan.complete:
        return "complete", ""
    if busy and record.get("state") == "running":
        return "running", f"since {record.get('started_at', '?')}"
    if blocking := [need for need in plan.needs if states[need] in ("failed", "blocked")]:
        return "blocked", f"needs {', '.join(blocking)}"
    if record.get("state") == "failed":
        return "failed", f"exit code {record.get('code')}"
    if record.get("state") in ("stopped", "running") or _has_begun(plan):
        return "partly", "goes on from what is there"
    waits = [need for need in plan.needs if states[need] != "complete"]
    return "to do", f"after {', '.join(waits)}" if waits else ""


def _has_begun(plan: _chain.Planned) -> bool:
    """Whether there is output of a command that leaves something to go on from."""
    if plan.words[0] == "shard":
        done = plan.work.tasks[-1].done
        place = Path(done).parent if done else None
    else:
        place = plan.work.folder if plan.words[0] in ("pretrain", "finetune", "sweep") else None
    return place is not None and place.is_dir() and any(entry.name != "submission" for entry in place.iterdir())


def _cost(state: State, record: dict[str, Any], equal: dict[str, Any] | None, takes: str) -> tuple[float | None, str]:
    if state == "complete":
        seconds = record.get("seconds")
        return (seconds, f"took {spoken(seconds)}") if record.get("state") == "done" and seconds else (None, "")
    if equal is not None:
        seconds = float(equal["seconds"])
        return seconds, f"about {spoken(seconds)}, as an equal stage took here ({equal['where']})"
    if takes:
        return None, f"{takes}, says the study's author"
    return None, "no estimate: no equal stage has run to its end here"


def _identities(study: Study) -> dict[str, str]:
    """Stage -> hash of what determines its work."""
    known = {**study.known("{out}"), **{f"spec-{name}": f"{{spec-{name}}}" for name in study.specs}}
    specs = fill_value(study.specs, {**known, **study.known("{out}")})
    found: dict[str, str] = {}
    for stage in study.stages:
        used = [specs[name] for name in study.specs if any(f"{{spec-{name}}}" in word for word in stage.words)]
        what = [[fill(word, known) for word in stage.words], used, sorted(found[need] for need in stage.needs)]
        found[stage.name] = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
    return found


def _earlier(folder: StudyFolder) -> dict[str, dict[str, Any]]:
    """Identity of a stage -> its record, of studies in this folder and beside it that were measured on this machine."""
    found: dict[str, dict[str, Any]] = {}
    with contextlib.suppress(OSError):
        for path in sorted(folder.path.parent.glob("*/stages/*/record.json")):
            record = read_record(path)
            fits = record.get("state") == "done" and record.get("machine") == machine() and "identity" in record
            if fits and isinstance(record.get("seconds"), (int, float)):
                found[str(record["identity"])] = {**record, "where": shown_path(path.parents[2])}
    return found


def totals(standings: Sequence[Standing]) -> str:
    """Return one line: how many stages stand how, and what is known of the time still needed."""
    counts = {state: sum(found.state == state for found in standings) for state in ("complete", "running", "partly")}
    counts |= {state: sum(found.state == state for found in standings) for state in ("to do", "failed", "blocked")}
    text = f"{len(standings)} stages: " + ", ".join(f"{number} {state}" for state, number in counts.items() if number)
    left = [found for found in standings if found.state != "complete"]
    known = [found.seconds for found in left if found.seconds is not None]
    if left and known:
        text += f"; {spoken(sum(known))} for {len(known)} of the {len(left)} to run, as equal stages took here"
    if left and len(known) < len(left):
        text += f"; {len(left) - len(known)} without a measured time"
    return text
