"""Runs below a folder, mirrored to trackers from their own files.

The files are the queue: what could not be sent is sent later, by this process or by the next one, and nothing is kept
in memory. RUN/tracking.json says how far each tracker is, and which run there is ours, so that a run that was requeued
goes on as the same one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from results import atomic, levels
from results.configs import flat
from results.errors import InputError
from results.run import RUN_FOLDERS, Run
from results.tracking.backends import TRACKERS, Tracker, quieten, without_secrets

BLOCK_BYTES = 1 << 20
"""Most of metrics.jsonl that is read and sent at a time."""


class Mirror:
    """Sends what is new of every run below a folder."""

    def __init__(self, top: Path, trackers: Sequence[str], say: Callable[[str], None] | None = None) -> None:
        """Mirror to `trackers`, names of `TRACKERS`; `say` is told once of each that fails."""
        self.top, self.names = top, tuple(trackers)
        self.open: dict[tuple[Path, str], Tracker] = {}
        self.failing: set[str] = set()
        self.busy: set[Path] = set()
        self._say = say or (lambda text: print(text, file=sys.stderr, flush=True))

    def sync(self) -> bool:
        """Send what is new; whether everything could be sent. A tracker that fails is told once and tried again."""
        complete = True
        for run in runs_below(self.top):
            for name in self.names:
                try:
                    with _alone(run) as ours:
                        if ours:
                            self._sync(run, name)
                    complete &= ours
                    self._note_busy(run, not ours)
                    self.failing.discard(name)
                except Exception as error:  # a tracker may raise anything, and none of it may matter to the training
                    complete = False
                    self.open.pop((run.path, name), None)
                    if name not in self.failing:
                        self.failing.add(name)
                        text = _told(error)
                        self._say(f"cxrdist: {name} cannot be reached ({text}); training goes on, it is tried again")
        return complete

    def _note_busy(self, run: Run, is_busy: bool) -> None:
        if is_busy and run.path not in self.busy:
            self._say(f"cxrdist: another process is sending {run.path} just now")
        (self.busy.add if is_busy else self.busy.discard)(run.path)

    def close(self) -> None:
        """Let go of all runs."""
        for (_, name), tracker in self.open.items():
            try:
                tracker.close()
            except Exception as error:
                self._say(f"cxrdist: {name}: {_told(error)}")
        self.open.clear()

    def _sync(self, run: Run, name: str) -> None:
        state = _state(run)
        held = state.get(name, {"id": None, "bytes": 0, "done": False})
        if held["done"]:
            return
        rows, position = _new_rows(run, held["bytes"])
        done = run.is_done
        if not rows and not done and held["id"] is not None:
            return
        tracker = self.open.get((run.path, name)) or self._begin(run, name, held["id"])
        held["id"] = tracker.id
        _note(run, name, held)  # before anything is sent: a process that is killed now must not begin another run
        while position > held["bytes"]:  # a block may hold no row at all
            tracker.log(rows)
            held["bytes"] = position
            _note(run, name, held)
            rows, position = _new_rows(run, position)
        if done:
            tracker.finish(final_numbers(run))
            held["done"] = True
            _note(run, name, held)
            self.open.pop((run.path, name), None)

    def _begin(self, run: Run, name: str, run_id: str | None) -> Tracker:
        info = run.read_info()
        tags = {"job": str(info.get("job")), "signature": str(info.get("signature")), "run": str(run.path)}
        tags |= {"git_commit": str(info["git_commit"])} if info.get("git_commit") else {}
        title = f"{info.get('job')} {run.path.name}"
        quieten()
        config = {key: _safe(value) for key, value in flat(run.read_config()).items()}
        tracker = TRACKERS[name](title, config, tags, run_id, run.path)
        self.open[run.path, name] = tracker
        return tracker


@contextlib.contextmanager
def _alone(run: Run) -> Iterator[bool]:
    """Hold what is known of a run's trackers; whether no other process does. Without locks everybody does."""
    handle = os.open(run.path / ".tracking.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            yield error.errno not in (errno.EAGAIN, errno.EACCES)
        else:
            yield True
    finally:
        os.close(handle)


def _told(error: Exception) -> str:
    return without_secrets(" ".join(str(error).split()))[:300] or type(error).__name__


def _safe(value: Any) -> Any:
    """A setting without the secrets of URLs in it."""
    if isinstance(value, list):
        return [_safe(item) for item in value]
    return without_secrets(value) if isinstance(value, str) else value


def runs_below(top: Path) -> list[Run]:
    """Every run below a folder, itself counted."""
    found: list[Run] = []
    pending = [top]
    while pending:
        folder = pending.pop()
        is_run = (folder / "run.json").is_file()
        if is_run:
            found.append(Run(folder))
        try:
            entries = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.is_symlink())
        except OSError:
            continue
        pending += [entry for entry in entries if entry.name[0] != "." and not (is_run and entry.name in RUN_FOLDERS)]
    return sorted(found, key=lambda run: run.path)


def _state(run: Run) -> dict[str, Any]:
    try:
        return dict(json.loads(run.tracking.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _note(run: Run, name: str, held: Mapping[str, Any]) -> None:
    atomic.write_text(run.tracking, json.dumps({**_state(run), name: dict(held)}, indent=1) + "\n")


def _new_rows(run: Run, position: int) -> tuple[list[tuple[int, dict[str, float]]], int]:
    """Whole lines of metrics.jsonl from a byte on, with the finite numbers in them, and where the next begin."""
    try:
        with run.metrics_log.open("rb") as log:
            log.seek(position)
            block = log.read(BLOCK_BYTES)
    except OSError:
        return [], position
    whole = block[: block.rfind(b"\n") + 1]
    rows = []
    for line in whole.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append((row["step"], numbers_in({key: value for key, value in row.items() if key != "step"})))
    return rows, position + len(whole)


def numbers_in(values: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers among values, by name."""
    return {
        key: float(value)
        for key, value in values.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    }


def final_numbers(run: Run) -> dict[str, float]:
    """The numbers of done.json, and every test metric as `test/SET/LABEL/METRIC`; by study as `test_study/...`."""
    from results.schema import read_metrics

    found = numbers_in(run.read_done())
    try:
        rows = read_metrics(run.metrics).select(["test_dataset", "label", "metric", "value", "level"]).to_pylist()
    except InputError:  # a pretraining run has none
        return found
    tests = {level: "test" if level == levels.IMAGE else f"test_{level}" for level in levels.LEVELS}
    named = {
        f"{tests[levels.of(row)]}/{row['test_dataset']}/{row['label']}/{row['metric']}": row["value"] for row in rows
    }
    return found | numbers_in(named)
