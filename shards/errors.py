"""The two errors of this package; the number is the exit code of the command that met it."""

from __future__ import annotations


class InputError(ValueError):
    """The arguments or the data cannot be used; the message says what, where and how to fix it."""

    exit_code = 2


class FailedError(RuntimeError):
    """The work stopped (full disk, dead worker, too many rejects); the same command goes on from there."""

    exit_code = 1
