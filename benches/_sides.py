"""Ways of training that take turns, each in a process of its own, so that none works or holds memory for another.

A turn begins with steps that are not measured: they fill the loader's queue, which is then as full at the end of the
measured steps as at their beginning. What was prepared between turns is thrown away.
"""

from __future__ import annotations

import multiprocessing
import warnings
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from benches._simclr import Lightly, Ours, timed
from cxrdist.core.device import keep_freed_memory

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Setting:
    """What all ways have in common."""

    shards: Path
    folder: Path
    """The same JPEGs as files."""
    arch: str
    size: int
    batch: int
    threads: int
    workers: int
    """Worker processes of lightly's loader; ours decodes in one thread, or in the process with 0."""


class Side:
    """One way: "ours", "bare", "lightly float32" or "lightly bf16"."""

    def __init__(self, way: str, setting: Setting) -> None:
        """Start its process, which builds model and loader."""
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, way, setting))
        self._process.start()
        theirs.close()
        self.precision: str = self._pipe.recv()

    def turn(self, warm: int, steps: int) -> tuple[float, float, dict[str, float]]:
        """Wall seconds and CPU seconds of `steps` steps after `warm` others, and where ours spent them."""
        self._pipe.send((warm, steps))
        return self._pipe.recv()

    def close(self) -> None:
        """End the process."""
        self._pipe.send(None)
        self._process.join()


def _work(pipe: Connection, way: str, setting: Setting) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(setting.threads)
    work: Any
    if way.startswith("lightly"):
        amp = way.endswith("bf16")
        side: Any = Lightly(setting.folder, setting.arch, setting.size, setting.batch, CPU, amp=amp,
                            workers=setting.workers)  # fmt: skip
        work, rest = side.steps, side.rest
        pipe.send("bf16" if amp else "float32")
    else:
        keep_freed_memory()  # as the worker of cxrdist.pretrain does
        side = Ours(setting.shards, setting.arch, setting.size, setting.batch, CPU, workers=min(1, setting.workers))
        work, rest = (side.bare if way == "bare" else side.steps), side.close
        pipe.send(side.precision)
    while (asked := pipe.recv()) is not None:
        warm, steps = asked
        work(warm)
        spent = getattr(side, "spent", {})
        before = dict(spent)
        wall, cpu = timed(lambda steps=steps: work(steps), CPU)
        pipe.send((wall, cpu, {name: value - before[name] for name, value in spent.items()}))
        rest()
