"""Ranks without torchrun, forked from one warm process: for tests that do not concern the launcher.

A rank that starts on its own imports torch and timm for 8 s of CPU time; a forked one begins at once. The warm process
is multiprocessing's fork server: it has imported and done nothing else, so it has no threads and no state to inherit.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing import connection
from pathlib import Path
from typing import Any

from slurm import meeting

PRELOADED = ["cxrdist.pretrain.loop", "jsonargparse", "tests.cxrdist.rank_worker", "tests.cxrdist.resume_worker"]


def run_forked(work: Callable[..., Any], *args: Any, nproc: int, log: Path, timeout: float = 540) -> tuple[int, str]:
    """Call `work(*args)` in `nproc` ranks on this machine, set up as torchrun does it.

    Args:
        work: a module's function; what it returns is the rank's exit code (None = 0).
        args: its arguments, the same for all ranks.
        nproc: number of ranks.
        log: file for what the ranks write to their standard error.
        timeout: seconds after which ranks that still run are killed.

    Returns:
        The first exit code that is not 0 (128 + N for a death by signal N), and what was written to standard error.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(meeting.free_port(meeting.FIRST + os.getpid() % 10_000)),
        "GLOO_SOCKET_IFNAME": "lo",
    }
    shared |= {"WORLD_SIZE": str(nproc), "LOCAL_WORLD_SIZE": str(nproc)} if nproc > 1 else {}
    ranks = []
    for rank in range(nproc):
        # The fork server's environment is that of its start: a rank is told today's.
        environment = {**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        ranks.append(context.Process(target=_rank, args=(str(log), environment, work, args)))
    for rank in ranks:
        rank.start()
    deadline = time.monotonic() + timeout
    try:
        while (alive := [rank for rank in ranks if rank.is_alive()]) and not any(rank.exitcode for rank in ranks):
            left = deadline - time.monotonic()
            assert connection.wait([rank.sentinel for rank in alive], left), f"ranks still run after {timeout} s"
        failed = [rank.exitcode for rank in ranks if rank.exitcode]
    finally:
        for rank in ranks:  # as torchrun does, when one of them failed
            rank.kill()
            rank.join()
    code = failed[0] if failed else 0
    return (128 - code if code < 0 else code), log.read_text()


def _rank(log: str, environment: dict[str, str], work: Callable[..., Any], args: tuple[Any, ...]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(file, 2)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    try:
        code = work(*args)
    except BaseException:
        traceback.print_exc()
        raise
    sys.exit(code)
