"""A lock between processes that would otherwise make the same file twice."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def locked(path: Path, wait_seconds: float) -> Iterator[bool]:
    """Hold the lock file `path` while the block runs; gives whether the lock was got within `wait_seconds`.

    The lock saves double work, it does not guard correctness: what it protects appears by atomic rename. So a file
    system without locks (some network ones) or a stuck owner gives False and the caller goes on alone. The kernel
    drops the lock when its owner dies, however it dies.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        yield _wait(fd, time.monotonic() + wait_seconds)
    finally:
        os.close(fd)


def _wait(fd: int, deadline: float) -> bool:
    pause = 0.05
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EINTR):
                return False
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
        pause = min(1.0, 1.2 * pause)  # many waiters ask a network file system
