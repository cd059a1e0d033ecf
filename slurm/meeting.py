"""The port at which the nodes of a job meet: the first node takes a free one and publishes it in the job's folder.

A port derived from the job's number alone may be in use by anybody's program on the first node.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path

from slurm import atomic
from slurm.errors import FailedError

FIRST, LAST = 20100, 32100
"""Between Ray's workers (up to 19999) and the range from which systems draw their own ports (from 32768)."""
WAIT_S = 300.0
"""Bound on the wait for the first node."""


def place(folder: Path, owner: str) -> Path:
    """Return the file in which the first node of a stretch ("job 12.0") publishes its port."""
    return folder / f".meet-{owner.removeprefix('job ')}"


def job_port() -> int:
    """Return the port that this stretch of this job tries first; other jobs on the node try others."""
    job, restart = int(os.environ.get("SLURM_JOB_ID", "0")), int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    return FIRST + (job * 37 + restart * 11) % (LAST - FIRST)


def free_port(start: int, offsets: Sequence[int] = (0,)) -> int:
    """Return the first port from `start` on that is free on this machine, with port + each offset.

    Raises:
        FailedError: none is free.
    """
    for step in range(LAST - FIRST):
        port = FIRST + (start - FIRST + step) % (LAST - FIRST)
        if all(_is_free(port + offset) for offset in offsets):
            return port
    raise FailedError(f"no free port between {FIRST} and {LAST} on {socket.gethostname()}")


def _is_free(port: int) -> bool:
    with contextlib.ExitStack() as opened:
        try:
            if socket.has_dualstack_ipv6():
                opened.enter_context(socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True))
            else:
                opened.enter_context(socket.create_server(("", port)))
        except OSError:
            return False
    return True


def publish(path: Path, port: int) -> None:
    """Tell the other nodes the port."""
    atomic.write(path, str(port))


def published(path: Path, seconds: float = WAIT_S) -> int:
    """Return the port that the first node has published.

    Raises:
        FailedError: it did not within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError, ValueError):
            return int(path.read_text())
        if time.monotonic() > deadline:
            raise FailedError(
                f"the first node published no port in {seconds:.0f} s ({path}): see its log; is the folder shared?"
            )
        time.sleep(0.2)


def resolve(endpoint: str, *, first: bool) -> str:
    """Return HOST:PORT for HOST:FILE, publishing the port on the first node; HOST:PORT stays as it is."""
    host, _, where = endpoint.partition(":")
    if not where.startswith("/"):
        return endpoint
    if first:
        port = free_port(job_port())
        publish(Path(where), port)
    else:
        port = published(Path(where))
    return f"{host}:{port}"
