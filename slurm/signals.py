"""Being asked to stop: a flag that the training loop reads at the end of a step.

Saving inside a signal handler is how checkpoints are torn: the handler may run in the middle of an optimiser step or
of another save, and each rank gets its signal at a different step. So the handler only sets a flag; the ranks agree
on it by a collective at the end of a step and save once, together.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import sys
from types import FrameType

from slurm.inherited import AGENT

STOP_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)
"""USR1/USR2 come from `--signal` and preemption, TERM from a preemption without them, INT from Ctrl-C."""

_PR_SET_PDEATHSIG = 1


class StopRequest:
    """Whether this process was asked to stop. Use: `stop = StopRequest().install()`, then read `stop.requested`."""

    def __init__(self) -> None:
        # Plain values: a lock could be held by the very code that the next signal interrupts.
        self._requested = False
        self._number: int | None = None

    def install(self) -> StopRequest:
        """Take over USR1, USR2, TERM and INT, and end with the launcher that started this rank; returns self.

        Call it first thing in a worker, from the main thread. Until then the launcher keeps the signals ignored and
        repeats them, so none is lost during the imports. Processes forked later inherit the flag-only handler and
        are not hurt by signals that SLURM sends to every process of a job step.

        Raises:
            ValueError: not called from the main thread.
        """
        for number in STOP_SIGNALS:
            signal.signal(number, self._handle)
        # At its end Python gives signals with a handler of ours back their deadly default, and a stop signal that is
        # repeated just then would turn a rank that has saved and finished into one that failed.
        atexit.register(_ignore)
        # A rank that outlives its torchrun agent would write to a run that a restarted group also writes to.
        if "TORCHELASTIC_RUN_ID" in os.environ:
            die_with_parent(signal.SIGKILL, int(os.environ.get(AGENT, os.getppid())))
        return self

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._number = number
        self._requested = True

    @property
    def requested(self) -> bool:
        """True from the first stop signal on."""
        return self._requested

    @property
    def signal_name(self) -> str | None:
        """Name of the latest signal, such as "SIGUSR2"; None when none came."""
        return None if self._number is None else signal.Signals(self._number).name

    def request(self) -> None:
        """Set the flag from inside the program (tests, or a loop that knows it must stop)."""
        self._requested = True


def _ignore() -> None:
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def die_with_parent(number: int, parent: int | None = None) -> None:
    """Ask the kernel to send `number` to this process when its parent ends (Linux; does nothing elsewhere).

    Args:
        number: The signal.
        parent: Id of the process that started this one; None: whoever is the parent now. Without it, a process whose
            parent ended during its imports takes the one it was handed on to for its parent, and lives on.
    """
    if sys.platform != "linux":
        return
    parent = parent or os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    if os.getppid() != parent:  # it has ended already: the kernel has no parent left to report
        os.kill(os.getpid(), number)
