"""Programs that outlive the test that started them, and are found and ended again by number and start time."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from settings import STATE

from slurm.processes import descendants, send

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "slurmdbd", "mariadbd", "mariadb-install-db", "ip", "nsenter")
PACKAGES = "munge slurm-wlm slurmdbd mariadb-server-core mariadb-client-core iproute2 util-linux"


class ClusterError(RuntimeError):
    """The cluster cannot be had on this machine, or a daemon did not come up."""


def missing_for_cluster() -> str | None:
    """Say why this machine cannot run the cluster, or None when it can (perhaps after installing packages)."""
    if sys.platform != "linux":
        return "not Linux"
    if os.geteuid() != 0:
        return "not root"
    absent = [name for name in PROGRAMS if not shutil.which(name)]
    if absent and not shutil.which("apt-get"):
        return f"no {', '.join(absent)} and no apt-get"
    return None


def run(*words: str, check: bool = True, seconds: float = 60, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=seconds, env=env)
    if check and done.returncode:
        raise ClusterError(f"{' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def install() -> None:
    if all(shutil.which(name) for name in PROGRAMS):
        return
    policy = Path("/usr/sbin/policy-rc.d")  # keeps the packages from starting system-wide daemons
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        run("apt-get", "update", "-qq", seconds=300, env=env)
        run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES.split(), seconds=600, env=env)
    finally:
        if ours:
            policy.unlink()


# ---- processes: a note holds number and start time, so that a number used again is never taken for ours


def _start_time(pid: int) -> str | None:
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    return None


def note(name: str, pid: int) -> None:
    (STATE / f"note-{name}").write_text(f"{pid} {_start_time(pid)}")


def pid_of(name: str) -> int | None:
    """Return the process number of a daemon that `up` started and that still lives."""
    with contextlib.suppress(OSError, ValueError):
        pid, started = (STATE / f"note-{name}").read_text().split()
        return int(pid) if _start_time(int(pid)) == started else None
    return None


def spawn(name: str, *words: str, env: dict[str, str] | None = None) -> None:
    if pid_of(name):
        return
    with (STATE / "log" / f"{name}.out").open("ab") as log:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, **(env or {})},
        )  # fmt: skip
    process.returncode = 0  # it outlives us on purpose: no warning when the object goes
    note(name, process.pid)


def end(name: str, number: int = signal.SIGTERM) -> None:
    pid = pid_of(name)
    if pid:
        send([pid], number)
        if not until(lambda: pid_of(name) is None, 8):
            send([*descendants(pid), pid], signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid or -99999, os.WNOHANG)
    (STATE / f"note-{name}").unlink(missing_ok=True)


def until(true: Callable[[], object], seconds: float, pause: float = 0.1) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(pause)
    return False
