"""Starts the Ray driver of a sweep (`cxrdist.sweep`), follows it, and starts it again when it dies. Free of ray."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import threading
import time
from typing import Any, TextIO

from cxrdist.errors import FailedError
from cxrdist.sweep import cost
from cxrdist.sweep.config import SweepConfig
from cxrdist.sweep.folder import SweepCell, SweepFolder
from cxrdist.sweep.progress import SweepProgress
from slurm.processes import SAFE_PATH, python

SILENT_SECONDS = 180.0
"""A driver that gives no sign of life for so long is ended and started again."""

RESTARTS = 3
"""Starts of the driver without a single cell finished in between, after which the sweep gives up."""

STOP_SECONDS = 15.0


class Watchdog:
    """Starts the driver, shows what it does, and starts it again when it dies."""

    def __init__(self, config: SweepConfig, cells: list[SweepCell], missing: list[SweepCell], ledger: SweepFolder):
        self.config, self.ledger = config, ledger
        self.total = len(cells)
        self.missing = {cell.signature: cell for cell in missing}
        self.running: set[str] = set()
        self.failed: dict[str, int] = {}
        self.began = time.monotonic()
        self.work_done = 0.0
        self.lanes = 1
        self.show = SweepProgress(self.total, self.total - len(missing))

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
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(self.config.cpus_per_trial),
            "PYTHONUNBUFFERED": "1",
            SAFE_PATH: "1",
        }
        child = subprocess.Popen(
            python("-m", "cxrdist.sweep", str(self.ledger.out.resolve())),
            stdout=subprocess.PIPE,
            stderr=open(self.ledger.logs / "ray.log", "ab"),
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            cwd=self.ledger.out,  # Ray lets its workers look for modules in the driver's folder first
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
            _sweep_up(child.pid)
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
            if not self.missing or (child.poll() is not None and events.empty()):
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


def _sweep_up(session: int) -> None:
    """End what the driver left behind: workers outlive a killed raylet. The driver had a session of its own."""
    import psutil

    for pid in psutil.pids():
        with contextlib.suppress(OSError):  # it ended while we looked
            if os.getsid(pid) == session:
                os.kill(pid, signal.SIGKILL)


def _summary(cell: SweepCell) -> str:
    done = cell.run.read_done()
    value = done.get("val_auroc")
    shown = "undefined" if value is None else f"{value:.3f}"
    return f"{cell.name}  val AUROC {shown}  {done.get('wall_seconds') or 0:.1f} s"
