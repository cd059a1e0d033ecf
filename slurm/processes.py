"""The process tree below the launcher: who the workers are, and how all of it is ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

SAFE_PATH = "PYTHONSAFEPATH"
"""Environment variable that does for the Pythons our programs start themselves (torchrun, Ray) what -P does here."""


def python(*words: str) -> list[str]:
    """Return the words that start this Python with WORDS.

    -P: `python -m` would look for modules in the working folder first, and a user's slurm.py, queue.py or results.py
    there would take the place of ours and of Python's own. PYTHONPATH stays as the user set it.
    """
    return [sys.executable, "-P", *words]


def children(pid: int) -> list[int]:
    """Return the direct children of `pid`."""
    return _below(pid, recursive=False)


def descendants(pid: int) -> list[int]:
    """Return every process below `pid`."""
    return _below(pid, recursive=True)


def _below(pid: int, *, recursive: bool) -> list[int]:
    import psutil  # 20 ms that login-node commands need not spend

    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=recursive)]
    except psutil.Error:  # it has ended
        return []


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
    """A number seen a moment ago still names a process of this user (not another user's, under a reused number)."""
    import psutil

    try:
        return psutil.Process(pid).uids().real == os.getuid()
    except psutil.Error:
        return False
