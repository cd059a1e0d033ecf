"""The two ways in which this package refuses to go on."""


class InputError(ValueError):
    """Arguments, files or settings that cannot be used; the message says what, where and how to fix it."""

    exit_code = 2


class FailedError(RuntimeError):
    """Work that was begun and could not be finished; the message says where it stopped and what was kept."""

    exit_code = 1
