"""The errors this package raises for what a user or a cluster can cause."""


class InputError(ValueError):
    """The request cannot be used: the message says what, where and how to fix it."""

    exit_code = 2


class FailedError(RuntimeError):
    """The request was sound but could not be carried out (SLURM absent or down, a job that died)."""

    exit_code = 1
