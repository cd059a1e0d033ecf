"""Workers of test_data_parallel: ranks that stop of themselves, exchanges that are counted, parameters without use."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from cxrdist.core.device import pick_device
from cxrdist.core.distributed import Ranks, data_parallel, join
from cxrdist.pretrain import loop
from cxrdist.pretrain.losses.nt_xent import nt_xent
from cxrdist.pretrain.step import Step
from results.run import Run
from slurm.signals import StopRequest

CPU = torch.device("cpu")


class StopAfter(StopRequest):
    """Asks for a stop once a number of steps have begun."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    @property
    def requested(self) -> bool:
        self.left -= 1
        return self.left <= 0


def train(path: str, steps: int) -> None:
    """Train a run until its end or a stop after `steps` in this process."""
    run = Run.open(path)
    config = loop.from_dict(loop.PretrainConfig, run.read_config())
    torch.set_num_threads(1)
    with join(pick_device(config.device)) as ranks:
        loop.train(config, run, ranks, StopAfter(steps))


class KilledAfter(StopRequest):
    """Has this process killed a moment after a number of steps have begun, whatever it does by then."""

    def __init__(self, steps: int, seconds: float) -> None:
        super().__init__()
        self.left, self.seconds = steps, seconds

    @property
    def requested(self) -> bool:
        self.left -= 1
        if self.left == 0:
            threading.Timer(self.seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return False


def train_until_killed(path: str, victim: int, steps: int, seconds: float) -> None:
    """Train a run; rank `victim` is killed `seconds` after it has begun its step number `steps` in this process."""
    run = Run.open(path)
    config = loop.from_dict(loop.PretrainConfig, run.read_config())
    torch.set_num_threads(1)
    with join(CPU) as ranks:
        loop.train(config, run, ranks, KilledAfter(steps if ranks.rank == victim else 0, seconds))


class Idle(nn.Module):
    """A network of which one layer is not used."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.idle = nn.Linear(9, 4), nn.Linear(9, 4)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, views: torch.Tensor) -> torch.Tensor:
        """(V, 1, 3, 3) -> (V, 4)."""
        return self.norm(self.layer(views.flatten(1)))


def step_of_idle(ranks: Ranks, micro_batch: int | None, hook: Callable[..., Any] | None = None) -> Idle:
    """The network after one step of SGD with decay on views of its own seed."""
    model = Idle().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    parallel: Any = data_parallel(model, ranks, torch.zeros(2, 1, 3, 3))
    if hook is not None:
        parallel.register_comm_hook(None, hook)
    step = Step(parallel, CPU, "float32", nt_xent, micro_batch)
    step.rehearse(torch.zeros(2, 1, 3, 3))
    first, second = torch.randn(2, 8, 1, 3, 3, generator=torch.Generator().manual_seed(1))
    step(first, second)
    optimizer.step()
    return model


def idle(out: str) -> None:
    """Write what every rank's network came to: OUT/WORLD-RANK.pt."""
    with join(CPU) as ranks:
        torch.save(step_of_idle(ranks, None).state_dict(), Path(out) / f"{ranks.world}-{ranks.rank}.pt")


def counted(out: str) -> None:
    """Write how often a rank exchanged gradients in the rehearsal and in a step of eight parts: OUT/RANK."""
    sent: list[int] = []

    def hook(state, bucket):
        sent.append(bucket.index())
        return allreduce_hook(state, bucket)

    with join(CPU) as ranks:
        step_of_idle(ranks, 2, hook)
        (Path(out) / str(ranks.rank)).write_text(" ".join(map(str, sent)))
