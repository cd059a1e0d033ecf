"""Work that is done in threads before its result is asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from cxrdist.core.device import usable_cores

Part = TypeVar("Part")
Result = TypeVar("Result")


def ahead(work: Callable[[Part], Result], parts: Sequence[Part], threads: int | None = None) -> Iterator[Result]:
    """Yield work(part) for every part, in order; one more than there are threads may be begun and not yet asked for.

    Args:
        work: releases the GIL where it takes long, else nothing is gained.
        parts: one after the other.
        threads: None: as many as there are cores.
    """
    threads = usable_cores() if threads is None else threads
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for part in parts:
            waiting.append(pool.submit(work, part))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # the caller may stop early
        pool.shutdown(wait=True, cancel_futures=True)
