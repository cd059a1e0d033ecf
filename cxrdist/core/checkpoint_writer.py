"""Checkpoints written by a thread while training goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch


def copied(value: Any) -> Any:
    """A copy of nested dicts, lists and tuples whose tensors are copies in this machine's memory.

    The training may change the original from here on: the copy stays what it was.
    """
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: copied(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(copied(inner) for inner in value)
    return value


class CheckpointWriter:
    """Does one piece of writing at a time in a thread; what it raises comes out of the next `settle`.

    Python ends only when the writing has ended, unless the process is killed.
    """

    def __init__(self) -> None:
        """Nothing is written yet; the thread starts with the first piece."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Begin a piece, when the one before has ended.

        Args:
            work: what is done; it must read nothing that the training changes.

        Raises:
            Exception: whatever the piece before raised.
        """
        self.settle()
        self._writing = self._thread.submit(work)

    def settle(self) -> None:
        """Wait until nothing is being written.

        Raises:
            Exception: whatever the writing raised, once.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()
