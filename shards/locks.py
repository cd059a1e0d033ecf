"""A lock between processes of one or many machines. The kernel drops it when its owner dies, however it dies.

filelock is not used here: on a file system without flock it falls back to a file whose existence is the lock, which
outlives a killed owner and would keep the next one out for ever. Here such a file system lets everybody in; what the
locks of this project guard appears by atomic rename and may be made twice.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

_POLL_SECONDS = 0.05


@contextlib.contextmanager
def locked(path: Path, wait_seconds: float = math.inf, busy: Exception | None = None) -> Iterator[bool]:
    """Hold the lock file `path` while the block runs; gives whether the lock was got.

    Args:
        path: made if it is not there; its folder must be.
        wait_seconds: how long to wait for another owner.
        busy: what to raise when another process still holds it then; None goes on without the lock.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        got = _wait(fd, time.monotonic() + wait_seconds)
        if got is None and busy is not None:
            raise busy
        yield bool(got)
    finally:
        os.close(fd)


def _wait(fd: int, deadline: float) -> bool | None:
    """True: got; False: a file system without locks; None: another process holds it."""
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EINTR):
                return False
        if time.monotonic() > deadline:
            return None
        time.sleep(_POLL_SECONDS)
