"""First code of a stage's process: `python -m jobs._study.stage PARENT LOCK COMMAND...`, then it is that command.

A study that is killed cannot end its stage. The kernel tells the stage so (SIGINT, on which commands save what they
can), and the stage holds a lock of its own until its very end, so that no second study starts the same work beside it.
"""

from __future__ import annotations

import os
import platform
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from shards.locks import locked
from slurm.signals import die_with_parent

INTERRUPTED = 130


def main(words: Sequence[str]) -> int:
    """Run the command of a stage, until its end or until the study PARENT is gone; its exit code."""
    parent, lock, *command = words
    # A shell's script starts commands in its background with SIGINT ignored, which the stage would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with locked(Path(lock), 0):  # free: only who holds the study starts stages, and waits for this lock before
            Path(lock).write_text(f"process {os.getpid()} on {platform.node()}", encoding="utf-8")
            die_with_parent(signal.SIGINT, int(parent))
            from jobs import cli

            return cli.main(command)
    except KeyboardInterrupt:  # before the command could say so itself
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
