"""The ranks of a run: who this process is, agreement among ranks, and the sum of gradients.

The gradient sum is own code for one reason: torch's DistributedDataParallel lays out its buckets anew after the first
step of every process, and with three or more ranks the layout decides the order of additions. A resumed run would
then differ in the last bits from an unbroken one. Here the layout is fixed.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import PrefixStore, Store, rendezvous  # pyright: ignore[reportPrivateImportUsage]

from cxrdist.errors import FailedError

_BUCKET_BYTES = 25 * 2**20
_TIMEOUT = datetime.timedelta(minutes=15)  # a rank that waits longer for the others gives up with an error
_LOOK_S = 0.1  # between two looks at whether all are there
_LATE_S = 30.0  # a request to stop may reach the nodes so far apart


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run."""

    rank: int = 0
    """Number of this process, 0..world-1."""
    world: int = 1
    """Number of processes."""
    device: torch.device = torch.device("cpu")
    """Where this process computes."""

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether any rank says so; every rank must ask. A CPU collective: it does not wait for the GPU."""
        return self.ask(flag).answer()

    def ask(self, flag: bool) -> Question:
        """As `any`, but the answer may be fetched later; the step runs meanwhile."""
        value = torch.tensor([int(flag)], dtype=torch.int32)
        return Question(value, dist.all_reduce(value, dist.ReduceOp.MAX, async_op=True) if self.world > 1 else None)

    def share(self, value: Any) -> Any:
        """Rank 0's value (any plain object) on every rank."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def gather_rows(self, part: torch.Tensor, counts: list[int]) -> torch.Tensor:
        """Concatenate every rank's rows, counts[r] of them, in rank order; the result is on every rank."""
        if self.world == 1:
            return part
        padded = part.new_zeros((max(counts), *part.shape[1:]))
        padded[: len(part)] = part
        parts = [torch.empty_like(padded) for _ in range(self.world)]
        dist.all_gather(parts, padded)
        return torch.cat([p[:n] for p, n in zip(parts, counts, strict=True)])

    def copy_from_first(self, module: nn.Module, *, buffers_only: bool = False) -> None:
        """Overwrite this rank's buffers (and parameters) with rank 0's."""
        if self.world == 1:
            return
        tensors = list(module.buffers()) if buffers_only else [*module.parameters(), *module.buffers()]
        for tensor in tensors:
            dist.broadcast(tensor.detach(), src=0)


class Question:
    """A yes-or-no question that is on its way to all ranks."""

    def __init__(self, value: torch.Tensor, work: Any) -> None:
        self._value, self._work = value, work

    def answer(self) -> bool:
        """Wait for all ranks; True if any said yes."""
        if self._work is not None:
            self._work.wait()
        return bool(self._value.item())


def open_store() -> Store | None:
    """Where the ranks that torchrun started find each other; None without torchrun."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None
    return next(rendezvous("env://", timeout=_TIMEOUT))[0]


def wait_for_all(store: Store | None, asked_to_stop: Callable[[], bool]) -> bool:
    """Wait until every rank is here, however long one takes to get its data.

    Joining the group has a timeout, as every step has; getting ready has none but the job's own.

    Args:
        store: what `open_store` returned.
        asked_to_stop: looked at while waiting.

    Returns:
        Whether all are here; False when this rank was asked to stop before.

    Raises:
        FailedError: the first rank, which holds the store, is gone.
    """
    if store is None:
        return True
    try:
        if store.add("cxrdist/ready", 1) == int(os.environ["WORLD_SIZE"]):
            store.set("cxrdist/all_ready", "1")
        while not store.check(["cxrdist/all_ready"]):
            if asked_to_stop():
                return False
            time.sleep(_LOOK_S)
        return True
    except dist.DistError as error:
        until = time.monotonic() + _LATE_S
        while time.monotonic() < until:  # it may have left because all were asked to
            if asked_to_stop():
                return False
            time.sleep(_LOOK_S)
        raise FailedError(f"the first rank ended before all were ready; its own message says why ({error})") from None


@contextlib.contextmanager
def join(device: torch.device, store: Store | None = None) -> Iterator[Ranks]:
    """Join the ranks that torchrun started, leave at the end. Alone without torchrun.

    Args:
        device: where this rank computes.
        store: what `open_store` returned; None: it is opened here.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks(device=device)
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    store = store or open_store()
    assert store is not None
    rank, group = int(os.environ["RANK"]), PrefixStore("cxrdist/group", store)
    dist.init_process_group(backend, store=group, rank=rank, world_size=world, timeout=_TIMEOUT)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()


class GradientMean:
    """Averages gradients over ranks while the backward pass is still running, in a fixed layout of buckets.

    Shapes of buckets depend on the parameters alone, and buckets are sent in one order, so the order of additions is
    the same in every process of every attempt at a run.
    """

    def __init__(self, module: nn.Module, ranks: Ranks) -> None:
        """Watch a module's parameters; does nothing with one rank."""
        self.enabled = True
        """Off while gradients are accumulated that must not be sent yet."""
        self._world = ranks.world
        self._buckets: list[_Bucket] = []
        self._next = 0
        if ranks.world == 1:
            return
        # Backward reaches the last layers first, so their buckets come first.
        parameters = [p for p in reversed(list(module.parameters())) if p.requires_grad]
        for group in _split(parameters):
            bucket = _Bucket(group)
            self._buckets.append(bucket)
            for parameter in group:
                parameter.register_post_accumulate_grad_hook(self._hook(bucket))

    def _hook(self, bucket: _Bucket) -> Any:
        def arrived(parameter: torch.Tensor) -> None:
            if self.enabled:
                bucket.waiting -= 1
                self._send(force=False)

        return arrived

    def _send(self, *, force: bool) -> None:
        while self._next < len(self._buckets) and (force or self._buckets[self._next].waiting <= 0):
            self._buckets[self._next].send()
            self._next += 1

    def finish(self) -> None:
        """Wait until every gradient is the mean over ranks; parameters without one count as zero."""
        self._send(force=True)
        for bucket in self._buckets:
            bucket.receive(self._world)
        self._next = 0


class _Bucket:
    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.parameters = parameters
        self.waiting = len(parameters)
        sizes = [p.numel() for p in parameters]
        self.flat = torch.zeros(sum(sizes), dtype=parameters[0].dtype, device=parameters[0].device)
        self.views = [part.view_as(p) for part, p in zip(self.flat.split(sizes), parameters, strict=True)]
        self.work: Any = None

    def send(self) -> None:
        for view, parameter in zip(self.views, self.parameters, strict=True):
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            view.copy_(parameter.grad)
        self.work = dist.all_reduce(self.flat, async_op=True)

    def receive(self, world: int) -> None:
        self.work.wait()
        self.flat.div_(world)
        for view, parameter in zip(self.views, self.parameters, strict=True):
            assert parameter.grad is not None
            parameter.grad.copy_(view)
        self.waiting = len(self.parameters)


def _split(parameters: list[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    group: list[nn.Parameter] = []
    size = 0
    for parameter in parameters:
        bytes_ = parameter.numel() * parameter.element_size()
        if group and (size + bytes_ > _BUCKET_BYTES or parameter.dtype != group[0].dtype):
            yield group
            group, size = [], 0
        group.append(parameter)
        size += bytes_
    if group:
        yield group
