"""The folder of a study: what it was begun with, a log and a record of each stage.

DIR/study.toml                 the study file as it was
DIR/study.json                 the values it was begun with, and from which folder
DIR/specs/NAME.toml            its [spec.NAME] tables, filled in
DIR/logs/STAGE.log             what the stage printed, all its attempts
DIR/stages/STAGE/record.json   when it ran, how it ended, what it took
DIR/stages/STAGE/submission/   its SLURM job, where its command leaves no folder of its own
DIR/report.html                the page at the end
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jobs._study.file import Study, fill_value, load
from results import atomic
from results.identity import differences
from shards.locks import locked
from shards.processes import cores
from slurm.errors import InputError

FORMAT_VERSION = 1
_OURS = (".lock",)
"""What a study that was killed at its very start may have left, beside its file: `freeze` writes specs/ last."""
_PATIENCE_S = 2.0
"""How long a run waits for the folder: `is_busy` of another command holds it for a moment."""


@dataclasses.dataclass(frozen=True)
class StudyFolder:
    """Names and files of one study; making the object touches nothing."""

    path: Path
    """Absolute."""

    @property
    def frozen(self) -> Path:
        """The study file as it was when the study began."""
        return self.path / "study.toml"

    @property
    def info(self) -> Path:
        """What the study was begun with."""
        return self.path / "study.json"

    @property
    def specs(self) -> Path:
        """Folder of filled-in specs."""
        return self.path / "specs"

    @property
    def page(self) -> Path:
        """The report."""
        return self.path / "report.html"

    @property
    def stage_lock(self) -> Path:
        """What the stage at work holds, and says which process it is."""
        return self.path / ".stage.lock"

    def stage(self, name: str) -> Path:
        """The folder of a stage's record."""
        return self.path / "stages" / name

    def log(self, name: str) -> Path:
        """The log of a stage."""
        return self.path / "logs" / f"{name}.log"

    def record(self, name: str) -> dict[str, Any]:
        """Return the record of a stage: state, code, seconds, ...; empty when it has not been begun."""
        return read_record(self.stage(name) / "record.json")

    def write_record(self, name: str, facts: dict[str, Any]) -> None:
        """Write the record of a stage."""
        atomic.write_text(self.stage(name) / "record.json", json.dumps(facts, indent=2) + "\n")

    @contextlib.contextmanager
    def alone(self, patience: float = _PATIENCE_S) -> Iterator[None]:
        """Hold the folder.

        Args:
            patience: seconds to wait for another holder.

        Raises:
            InputError: another process runs this study, or a stage of one that was killed has not ended yet.
        """
        busy = InputError(f"another process is running the study in {self.path}; wait for it or stop it")
        with locked(self.path / ".lock", patience, busy):
            if os.access(self.stage_lock, os.R_OK | os.W_OK):
                left = InputError(
                    f"the study in {self.path} was killed, and its stage still works ({_text_of(self.stage_lock)}); "
                    "wait for it or end it"
                )
                with locked(self.stage_lock, patience, left):
                    pass
            yield

    def is_busy(self) -> bool:
        """Whether a process on this machine (or any, on a file system with locks) runs the study now."""
        if not os.access(self.path / ".lock", os.R_OK | os.W_OK):  # none, or a study of someone else's
            return False
        with contextlib.suppress(InputError), self.alone(patience=0):
            return False
        return True

    def held(self) -> dict[str, Any]:
        """Return what the study was begun with; empty when there is none.

        Raises:
            InputError: its study.json is damaged.
        """
        if not self.info.is_file():
            return {}
        try:
            held = json.loads(self.info.read_text(encoding="utf-8"))
            study = {part: dict(held["study"][part]) for part in ("set", "defaults", "spec", "stage")}
            return {"folder": str(held["folder"]), "study": study}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self.info} is damaged: {error!r}; choose another --out") from error

    def check(self, study: Study) -> list[str]:
        """Refuse a folder that is not this study's; return the names of stages that are new in it.

        Raises:
            InputError: it is a file, holds something else, or a study that differs, naming what.
        """
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is a file, not a folder; choose another --out")
        held = self.held().get("study")
        if held is None:
            ours = (*_OURS, "study.toml") if _text_of(self.frozen) == study.text else _OURS
            foreign = [entry for entry in os.listdir(self.path) if entry not in ours] if self.path.is_dir() else []
            if foreign:
                raise InputError(
                    f"{self.path} holds something else already ({sorted(foreign)[0]}); choose another --out"
                )
            return []
        wanted = study.record()
        new = [name for name in wanted["stage"] if name not in held["stage"]]
        for part in ("stage", "spec"):
            wanted[part] = {name: value for name, value in wanted[part].items() if name in held[part]}
        if differ := differences(held, wanted):
            raise InputError(
                f"{self.path} holds a study that differs from this one ({'; '.join(differ[:3])[:300]}); choose another "
                "--out, or what it was begun with"
            )
        return new

    def freeze(self, study: Study) -> None:
        """Make the folder and write what the study is begun with (or goes on with: other nodes, further stages).

        Raises:
            InputError: it cannot be written.
        """
        import tomli_w

        held = self.held()
        values = {"folder": held.get("folder", os.getcwd()), "study": study.record()}
        _write(self.frozen, study.text)
        _write(self.info, json.dumps({"format_version": FORMAT_VERSION, **values}, indent=2) + "\n")
        for name, table in study.specs.items():
            text = tomli_w.dumps(fill_value(table, study.known(str(self.path))))
            _write(self.specs / f"{name}.toml", text)

    def make(self) -> None:
        """Make the folder.

        Raises:
            InputError: it cannot be made or written to.
        """
        atomic.refuse_no_text(self.path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make {self.path}: {error.strerror}; choose another --out") from error
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise InputError(f"cannot write in {self.path}: Permission denied; choose another --out")


def _write(path: Path, text: str) -> None:
    """Write what is not there yet or differs: a file that stays keeps its time."""
    if _text_of(path) != text:
        atomic.write_text(path, text)


def _text_of(path: Path) -> str | None:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None


def open_study(out: str) -> tuple[StudyFolder, Study]:
    """Return the folder of a study and the study as it was begun; the process moves to where it was begun from.

    Raises:
        InputError: it holds no study.
    """
    folder = StudyFolder(Path(out).expanduser().absolute())
    held = folder.held()
    if not held or not folder.frozen.is_file():
        raise InputError(f"{out} is not the folder of a study (no study.json in it)")
    go_to(held["folder"])
    return folder, load(folder.frozen, chosen=held["study"]["set"])


def go_to(place: str) -> None:
    """Move to the folder that the study's relative paths are meant from; where it is gone, stay."""
    if place != os.getcwd() and os.path.isdir(place):
        os.chdir(place)


def read_record(path: Path) -> dict[str, Any]:
    """Return a record; empty where there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def machine() -> str:
    """Return what a measured time is true of: the host and how many cores this process may use."""
    return f"{platform.node()}, {cores()} cores"
