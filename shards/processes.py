"""Worker processes that neither outlive their parent nor leave it waiting when one of them dies."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for_handle
from typing import Any

from shards.errors import FailedError


def cores() -> int:
    """Return the number of cores this process may use (SLURM's and taskset's limits included)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _call(job: tuple[Callable[[Any], Any], Any]) -> Any:
    function, argument = job
    return function(argument)


def run_jobs(jobs: Iterable[tuple[Callable[[Any], Any], Any]], workers: int) -> Iterator[tuple[Any, Any]]:
    """Run (function, argument) jobs and yield (argument, result) as they finish, in no fixed order.

    `jobs` is consumed a little ahead of the workers only, and may grow while results are taken (it is asked again
    after every result). With one worker everything runs in this process.

    Raises:
        FailedError: a worker died (killed for memory, for one).
    """
    if workers == 1:
        for function, argument in jobs:
            yield argument, function(argument)
        return
    context = multiprocessing.get_context("spawn")  # fork would copy locks held by other threads of this process
    guard = contextlib.ExitStack()
    guard.enter_context(safe_path())
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    running: dict[Future[Any], Any] = {}
    source = iter(jobs)
    try:
        while True:
            while len(running) < 2 * workers + 2:
                job = next(source, None)
                if job is None:
                    break
                running[pool.submit(_call, job)] = job[1]
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    except BrokenProcessPool as error:
        raise FailedError(
            "a worker process died (out of memory?); run the same command again, with fewer --workers if it recurs"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        guard.close()


@contextlib.contextmanager
def safe_path() -> Iterator[None]:
    """Have started Pythons leave the working folder out of their module search path: it may hold a user's pickle.py."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("PYTHONSAFEPATH", None)
        else:
            os.environ["PYTHONSAFEPATH"] = before


def _start_worker() -> None:
    """End with the parent, however it ends; leave Ctrl-C to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait_for_handle([sentinel])
    os._exit(1)
