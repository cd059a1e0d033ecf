"""The process tree below the launcher: who the workers are, and how all of it is ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

SAFE_PATH = "PYTHONSAFEPATH"
"""Environment variable that does for the Pythons our programs start themselves (torchrun, Ray) what -P does here."""


def python(*words: str) -> list[str]:
    """Return the words that start this Python with WORDS.

    -P: `python -m` would look for modules in the working folder first, and a user's slurm.py, queue.py or results.py
    there would take the place of ours and of Python's own. PYTHONPATH stays as the user set it.
    """
    return [sys.executable, "-P", *words]


def parents() -> dict[int, int]:
    """Return pid -> parent pid of every process that can be seen."""
    proc = Path("/proc")
    if not (proc / "self/stat").exists():  # not Linux
        text = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, timeout=10).stdout
        return {int(pid): int(ppid) for pid, ppid in (line.split() for line in text.splitlines())}
    found = {}
    for entry in os.listdir(proc):
        if entry.isdigit():
            with contextlib.suppress(OSError, ValueError):  # it ended while we looked
                # The name in parentheses may hold spaces and parentheses: count from the last one.
                fields = (proc / entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                found[int(entry)] = int(fields[1])
    return found


def children(pid: int) -> list[int]:
    """Return the direct children of `pid`."""
    return [child for child, parent in parents().items() if parent == pid]


def descendants(pid: int) -> list[int]:
    """Return every process below `pid`, nearest first."""
    below = defaultdict(list)
    for child, parent in parents().items():
        below[parent].append(child)
    found: list[int] = []
    todo = [pid]
    while todo:
        nearest = below[todo.pop(0)]
        found += nearest
        todo += nearest
    return found


def send(pids: list[int], number: int) -> None:
    """Send a signal to each process that still lives."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def end_tree(process: subprocess.Popen[bytes], patience: float) -> None:
    """End a started process and all below it: INT to the process, KILL to what is left after `patience` seconds."""
    below = descendants(process.pid)
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + patience
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        below = list(dict.fromkeys(below + descendants(process.pid)))
        if process.poll() is None:
            process.kill()
            process.wait()
    send([pid for pid in below if _is_ours(pid)], signal.SIGKILL)


def _is_ours(pid: int) -> bool:
    """A number seen a moment ago still names a process of this user (not a reused number of somebody else)."""
    try:
        return os.stat(f"/proc/{pid}").st_uid == os.getuid()
    except OSError:
        return False
