"""What a job does on each of its nodes, as plain data: made on the login node, kept in the submission folder."""

from __future__ import annotations

import dataclasses
from typing import Literal

Kind = Literal["ranks", "command", "ray"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One node's share of a job; `slurm.node.run` does it."""

    kind: Kind
    """ranks: torchrun over all nodes; command: one program on one node; ray: a program on a Ray cluster over all."""
    words: tuple[str, ...]
    """Module and its arguments, as after `python -m`; {part} becomes the number within a job array."""
    folder: str
    """Submission folder: logs, the claim, the record of the environment."""
    done: str | None = None
    """File that exists exactly when the work is complete; None takes exit code 0 for that."""
    prepare: tuple[str, ...] = ()
    """Module and arguments that the first node runs before anything else when `prepared` does not exist yet."""
    prepared: str | None = None
    """File that `prepare` makes; the other nodes wait for it."""
    mark: str | None = None
    """File to write when a work without `done` ended with 0, so that a chain need not run it again."""
    ranks_per_node: int = 1
    """Processes on each node (kind ranks)."""
    cpus_per_rank: int = 1
    """Cores per rank."""
    gpus_per_node: int = 0
    """GPUs on each node."""
    max_restarts: int = 0
    """torchrun's own restarts within one stretch."""
    patience_s: float = 120.0
    """Seconds that workers have for their checkpoint after a stop signal before they are ended by force."""
    listens: bool = True
    """Whether the module stops by itself on USR2; otherwise it is interrupted with INT (its work must allow that)."""
    env: tuple[tuple[str, str], ...] = ()
    """Variables to export."""
