"""The two errors that a user of this package meets."""

from __future__ import annotations


class InputError(ValueError):
    """Arguments, a file or a folder cannot be used; the message says what, where and how to fix it."""

    exit_code = 2


class FailedError(RuntimeError):
    """The work was started with usable input and could not be completed."""

    exit_code = 1
