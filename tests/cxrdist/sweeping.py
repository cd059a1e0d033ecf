"""A small sweep, run as its user would, and what it leaves behind; shared by the tests of sweeps."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from results import schema
from results.run import Run
from tests.shadows import shadows

ROOT = Path(__file__).resolve().parents[2]

SPEC = """
[axes]
label_fraction = [0.2, 1.0]
mode = ["linear", "full"]
seed = [0, 1]
[exclude]
mode = "full"
label_fraction = 0.2
[finetune]
shards = "{shards}"
arch = "small_cnn"
image_size = 28
epochs = 2
min_steps = 8
n_boot = 10
"""
CELLS = 6
ALONE = ("--trials", "1")
"""Options of a sweep with one worker, for what needs no two: each imports torch and more for 10 s."""


def command(spec: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-P", "-m", "jobs.cli", "sweep", "--config", str(spec), "--out", str(out), *more]


def sweep(spec: Path, out: Path, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    environ = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"} | environment
    work = shadows(out.parent / "work")
    return subprocess.run(command(spec, out, *more), cwd=work, capture_output=True, text=True, timeout=400, env=environ)


def started_by(marker: str) -> list[int]:
    """Processes of this test's sweep: those that name its folder on their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(marker.encode() in word for word in words):
                found.append(int(entry.name))
    return found


def done_cells(out: Path) -> list[str]:
    return sorted(path.parent.name for path in out.glob("cells/*/done.json"))


def check_complete(out: Path, count: int = CELLS) -> None:
    """No cell lost, none doubled: every cell listed is done, and nothing else is there."""
    listed = sorted(cell["signature"] for cell in json.loads((out / "sweep.json").read_text())["cells"])
    assert done_cells(out) == listed and len(listed) == count
    assert sorted(path.name for path in out.glob("cells/[!.]*")) == listed
    described = set()
    for name in listed:
        run = Run(out / "cells" / name)
        config = run.read_config()
        described.add((config["label_fraction"], config["mode"], config["seed"]))
        keys = schema.read_predictions(run.predictions).to_pylist()
        assert len({(row["split"], row["key"], row["label"]) for row in keys}) == len(keys) == 80
    assert len(described) == count


def wait_for(condition, process: subprocess.Popen | None, seconds: float = 240.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited too long"
        assert process is None or process.poll() is None, "the sweep ended too early"
        time.sleep(0.1)


def workers_of(pid: int) -> list[int]:
    """Ray's worker processes below a process: those that run trials call themselves ray::NAME."""
    import psutil

    found = []
    try:
        for child in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):  # it may have ended meanwhile
                if any("ray::" in word and "Trainable" in word for word in child.cmdline()):
                    found.append(child.pid)
    except psutil.NoSuchProcess:
        pass
    return found


def head_of(pid: int, name: str) -> list[int]:
    """Processes of Ray's head below a process: gcs_server, or raylet."""
    import psutil

    with contextlib.suppress(psutil.Error):
        found = psutil.Process(pid).children(recursive=True)
        return [child.pid for child in found if child.name().startswith(name)]
    return []


def kill(pids: list[int]) -> None:
    """SIGKILL for each that is still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def cluster(folder: Path, *nodes: dict[str, float]) -> Iterator[tuple[str, Callable[[int], None]]]:
    """A Ray cluster with declared resources; yields its address and a function that loses a node."""
    short = tempfile.mkdtemp(prefix="cxr", dir="/tmp")  # sockets want short paths
    words = [sys.executable, "-m", "tests.cxrdist.ray_cluster", short, json.dumps(nodes)]
    with open(folder / "cluster.log", "w") as log:
        process = subprocess.Popen(
            words,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
    assert process.stdin is not None and process.stdout is not None

    def lose(number: int) -> None:
        process.stdin.write(f"lose {number}\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
        assert process.stdout.readline() == "lost\n"  # type: ignore[union-attr]

    try:
        address = process.stdout.readline().strip()
        assert address, (folder / "cluster.log").read_text()[-2000:]
        yield address, lose
    finally:
        process.stdin.close()
        try:
            process.wait(60)
        finally:
            kill([pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if session_of(pid) == process.pid])
            process.wait(30)
            process.stdout.close()
            shutil.rmtree(short, ignore_errors=True)


def session_of(pid: int) -> int:
    """The session of a process; 0 when it is gone."""
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0
