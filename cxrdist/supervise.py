"""The sweep as its user meets it: cells, progress, time left, failures. Free of torch and ray.

The Ray driver is a child process (`cxrdist.sweep`). When it or Ray's head dies, it is started again while cells keep
finishing; Ctrl-C ends it and leaves a folder from which the same command continues.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from cxrdist import cost, search
from cxrdist.cells import Cell, Ledger
from cxrdist.errors import FailedError, InputError
from cxrdist.finetune_config import plain
from cxrdist.grid import expand
from cxrdist.sweep_config import SweepConfig
from results import atomic

SILENT_SECONDS = 180.0
"""A driver that gives no sign of life for so long is ended and started again."""

RESTARTS = 3
"""Starts of the driver without a single cell finished in between, after which the sweep gives up."""

STOP_SECONDS = 15.0


def run(config: SweepConfig) -> int:
    """Run what is missing of a sweep; 0 when every cell is done, 1 when some failed, 130 after Ctrl-C.

    Raises:
        InputError: a spec that cannot be, a folder that holds something else, or another sweep at work in it.
        FailedError: Ray does not start.
    """
    cells = expand(config)
    ledger = Ledger(Path(config.out))
    if config.dry_run:
        _list(config, cells, ledger)
        return 0
    ledger.claim()
    with _alone(ledger):
        missing = ledger.missing(cells)
        for cell in missing:  # attempts are counted within one run of the sweep: the user may have mended the cause
            ledger.forgive(cell.signature)
        _write_plan(config, cells, ledger)
        if missing:
            with contextlib.suppress(FileNotFoundError):
                (ledger.out / "done.json").unlink()
            Watch(config, cells, missing, ledger).run()
        return _close(config, cells, ledger)


@contextlib.contextmanager
def _alone(ledger: Ledger) -> Iterator[None]:
    """One sweep at a time in a folder; the kernel ends the claim with the process."""
    handle = os.open(ledger.out / "sweep.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"another sweep is running in {ledger.out}; wait for it or stop it") from None
        yield
    finally:
        os.close(handle)


def _write_plan(config: SweepConfig, cells: list[Cell], ledger: Ledger) -> None:
    plan = {
        "format_version": 1,
        "trials": config.trials,
        "cpus_per_trial": config.cpus_per_trial,
        "gpus_per_trial": config.gpus_per_trial,
        "device": config.device,
        "retries": config.retries,
        "search": dataclasses.asdict(config.search),
        "cells": [
            {
                "signature": cell.signature,
                "name": cell.name,
                "values": cell.values,
                "work": cost.work(cell),
                "config": plain(cell.config),
            }
            for cell in cells
        ],
    }
    atomic.write_text(ledger.spec, json.dumps(plan, indent=1))


def _list(config: SweepConfig, cells: list[Cell], ledger: Ledger) -> None:
    finished = [cell for cell in cells if cell.run.is_done]
    missing = [cell for cell in cells if not cell.run.is_done]
    gpu = config.device == "cuda" or bool(config.gpus_per_trial)
    for cell in cells:
        state = "done" if cell.run.is_done else "to do"
        print(f"{cell.signature}  {state:<6}  {cell.name}")
    guess = cost.estimate(missing, finished, gpu, config.cpus_per_trial)
    basis = (
        "at the rate of the finished cells" if guess.measured else "a guess from the arithmetic, until a cell is done"
    )
    lanes = config.trials or (1 if gpu else max(1, (os.cpu_count() or 1) // config.cpus_per_trial))
    print(
        f"{len(cells)} cells, {len(finished)} done, {len(missing)} to do: {guess.images:,.0f} image passes,"
        f" about {cost.spoken(guess.seconds)} of trials, {cost.spoken(guess.seconds / lanes)} with {lanes} at a time"
        f" ({basis})"
    )


class Watch:
    """Starts the driver, shows what it does, and starts it again when it dies."""

    def __init__(self, config: SweepConfig, cells: list[Cell], missing: list[Cell], ledger: Ledger):
        self.config, self.ledger = config, ledger
        self.total = len(cells)
        self.missing = {cell.signature: cell for cell in missing}
        self.running: set[str] = set()
        self.failed: dict[str, int] = {}
        self.began = time.monotonic()
        self.work_done = 0.0
        self.lanes = 1
        self.show = Progress(self.total, self.total - len(missing))

    def run(self) -> None:
        """Until nothing is left to try."""
        barren = 0
        with self.show:
            while self._left():
                before = len(self.missing)
                code = self._drive()
                self._collect(list(self.missing))
                if not self._left():
                    break
                barren = 0 if len(self.missing) < before else barren + 1
                if barren >= RESTARTS:
                    tail = self._tail("ray.log")
                    raise FailedError(f"Ray ended {RESTARTS} times without finishing a cell (last exit {code}): {tail}")
                self.show.line(f"Ray ended unexpectedly (exit {code}); starting it again for the cells that are left")

    def _left(self) -> list[str]:
        """Cells that are neither done nor failed for good."""
        out = []
        for name in self.missing:
            attempts = self.ledger.attempts(name)
            if len(attempts) <= self.config.retries and not any(a["kind"] == "input" for a in attempts):
                out.append(name)
        return out

    def _tail(self, name: str) -> str:
        with contextlib.suppress(OSError):
            lines = (self.ledger.logs / name).read_text(errors="replace").split("\n")
            return f"{self.ledger.logs / name} ends: {' '.join([line for line in lines if line.strip()][-2:])[-400:]}"
        return "no log was written"

    def _drive(self) -> int:
        """One life of the driver; returns its exit code."""
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.config.cpus_per_trial), "PYTHONUNBUFFERED": "1"}
        child = subprocess.Popen(
            [sys.executable, "-m", "cxrdist.sweep", str(self.ledger.out.resolve())],
            stdout=subprocess.PIPE,
            stderr=open(self.ledger.logs / "ray.log", "ab"),
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            env=environment,
        )
        events: queue.Queue[dict[str, Any]] = queue.Queue()
        assert child.stdout is not None
        threading.Thread(target=_read, args=(child.stdout, events), daemon=True).start()
        temporary: list[str] = []
        try:
            self._follow(child, events, temporary)
        finally:
            self.running.clear()
            _end(child, patient=not self.missing)
            for path in temporary:
                shutil.rmtree(path, ignore_errors=True)
        return child.returncode

    def _follow(self, child: subprocess.Popen[str], events: queue.Queue[dict[str, Any]], temporary: list[str]) -> None:
        started, heard = False, time.monotonic()
        while True:
            with contextlib.suppress(queue.Empty):
                event = events.get(timeout=0.2)
                heard = time.monotonic()
                kind = event["event"]
                if kind == "temporary":
                    temporary.append(event["path"])
                elif kind == "started":
                    started, self.lanes = True, event["lanes"]
                    share = f", {event['gpus_per_trial']:g} GPU each" if event["gpus_per_trial"] else ""
                    nodes = f" on {event['nodes']} nodes" if event["nodes"] > 1 else ""
                    self.show.line(f"Ray Tune is up: {self.lanes} trials at a time{nodes}{share}")
                elif kind == "running":
                    self.running |= set(event["cells"])
                elif kind == "ended":
                    self._collect(event["cells"])
                    self.running -= set(event["cells"])
                elif kind == "finished":
                    self._collect(list(self.missing))
                    return
            self._collect(list(self.running))
            self.show.state(min(self.lanes, len(self.running & set(self.missing))), len(self.failed), self._time_left())
            if child.poll() is not None and events.empty():
                return
            silence = time.monotonic() - heard
            if not started and silence > self.config.start_seconds:
                raise FailedError(
                    f"Ray did not start within {self.config.start_seconds:.0f} s (--start_seconds)"
                    + (f" at RAY_ADDRESS {os.environ['RAY_ADDRESS']}" if os.environ.get("RAY_ADDRESS") else "")
                    + f"; {self._tail('ray.log')}"
                )
            if started and silence > SILENT_SECONDS:
                self.show.line(f"Ray has not answered for {SILENT_SECONDS:.0f} s")
                return

    def _collect(self, names: list[str]) -> None:
        """Show cells that have become done, and attempts that failed."""
        for name in names:
            cell = self.missing.get(name)
            if cell is None:
                continue
            if cell.run.is_done:
                self.show.done(_summary(cell))
                self.work_done += cost.work(cell)
                del self.missing[name]
                self.failed.pop(name, None)
                continue
            attempts = self.ledger.attempts(name)
            if len(attempts) > self.failed.get(name, 0):
                self.failed[name] = len(attempts)
                again = "" if name not in self._left() else "; it will be tried again"
                self.show.line(f"failed (attempt {len(attempts)}): {cell.name}: {attempts[-1]['error']}{again}")

    def _time_left(self) -> float | None:
        spent = time.monotonic() - self.began
        if not self.work_done or not spent:
            return None
        return sum(cost.work(cell) for cell in self.missing.values()) / (self.work_done / spent)


def _read(stream: TextIO, events: queue.Queue[dict[str, Any]]) -> None:
    for line in stream:
        with contextlib.suppress(ValueError):
            events.put(json.loads(line))


def _end(child: subprocess.Popen[str], *, patient: bool) -> None:
    """Ask the driver to end, then insist; Ray's own processes end with it (they share its fate)."""
    if patient:  # it has said that it is finished and is closing Ray
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(STOP_SECONDS)
    if child.poll() is None:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(STOP_SECONDS)
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait(STOP_SECONDS)


def _summary(cell: Cell) -> str:
    done = cell.run.read_done()
    value = done.get("val_auroc")
    shown = "undefined" if value is None else f"{value:.3f}"
    return f"{cell.name}  val AUROC {shown}  {done.get('wall_seconds') or 0:.1f} s"


class Progress:
    """A bar with a line above it for every finished cell on a terminal; lines alone in a log."""

    def __init__(self, total: int, done: int):
        self.total, self.count = total, done
        self.terminal = sys.stderr.isatty()
        self.bar: Any = None
        self._last = time.monotonic()

    def __enter__(self) -> Progress:
        if self.terminal:
            from tqdm import tqdm

            self.bar = tqdm(total=self.total, initial=self.count, unit="cell", file=sys.stderr, dynamic_ncols=True)
            self.bar.bar_format = "{l_bar}{bar}| {n_fmt}/{total_fmt} cells [{elapsed}{postfix}]"
        self.line(f"{self.count} of {self.total} cells are done, {self.total - self.count} to run")
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def line(self, text: str) -> None:
        """One line that stays."""
        if self.bar is not None:
            self.bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)

    def done(self, text: str) -> None:
        """One more cell is done."""
        self.count += 1
        self.line(f"[{self.count:>{len(str(self.total))}}/{self.total}] {text}")
        if self.bar is not None:
            self.bar.update(1)

    def state(self, running: int, failed: int, left: float | None) -> None:
        """What runs now and how long it will take; on a terminal in the bar, in a log every half minute."""
        text = f"{running} running"
        text += f", {failed} failed" if failed else ""
        text += f", about {cost.spoken(left)} left" if left is not None else ""
        if self.bar is not None:
            self.bar.set_postfix_str(text, refresh=True)
        elif time.monotonic() - self._last > 30:
            self._last = time.monotonic()
            self.line(f"{self.count}/{self.total} done, {text}")


def _close(config: SweepConfig, cells: list[Cell], ledger: Ledger) -> int:
    """Report; write done.json of the sweep when every cell is done."""
    missing = ledger.missing(cells)
    if config.search.method != "none":
        _search_table(config, cells, ledger)
    if not missing:
        atomic.write_text(ledger.out / "done.json", json.dumps({"format_version": 1, "cells": len(cells)}) + "\n")
        print(f"{ledger.out}: all {len(cells)} cells are done")
        return 0
    for cell in missing:
        attempts = ledger.attempts(cell.signature)
        print(f"FAILED {cell.name} ({cell.signature}), {len(attempts)} attempts", file=sys.stderr)
        for line in ledger.last_lines(cell.signature):
            print(f"    {line}", file=sys.stderr)
    kept = len(cells) - len(missing)
    print(
        f"cxrdist: {len(missing)} of {len(cells)} cells failed, {kept} are done and kept; logs are in {ledger.logs};"
        " the same command tries them again",
        file=sys.stderr,
    )
    return 1


def _search_table(config: SweepConfig, cells: list[Cell], ledger: Ledger) -> None:
    """All trials of a search as CSV, the chosen ones printed; test numbers are not in it."""
    import csv
    import io

    from cxrdist.finetune_parse import flat

    rows = search.trials(cells, flat(config.search.space))
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    atomic.write_text(ledger.out / "trials.csv", text.getvalue())
    print(f"all {len(rows)} trials: {ledger.out / 'trials.csv'} (chosen on val)")
    for row in rows:
        if row["chosen"]:
            named = " ".join(f"{key}={row[key]}" for key in list(row)[: list(row).index("signature")])
            print(f"chosen: {named}  val AUROC {row['val_auroc']:.4f}  cells/{row['signature']}")
