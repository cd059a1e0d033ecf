"""The ranks of a run: who this process is, agreement among ranks, and torch's DDP as a resumable run needs it."""

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
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from cxrdist.errors import FailedError

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

    def ask(self, flag: bool) -> PendingFlag:
        """As `any`, but the answer may be fetched later; the step runs meanwhile."""
        value = torch.tensor([int(flag)], dtype=torch.int32)
        return PendingFlag(value, dist.all_reduce(value, dist.ReduceOp.MAX, async_op=True) if self.world > 1 else None)

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

    def copy_buffers_from_first(self, module: nn.Module) -> None:
        """Overwrite this rank's buffers with rank 0's."""
        if self.world > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer.detach(), src=0)


class PendingFlag:
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


def backend(device: torch.device) -> str:
    """What carries tensors between ranks that compute on `device`: NCCL those on a GPU, gloo those on the CPU."""
    return "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"


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
    store = store or open_store()
    assert store is not None
    rank, group = int(os.environ["RANK"]), PrefixStore("cxrdist/group", store)
    dist.init_process_group(backend(device), store=group, rank=rank, world_size=world, timeout=_TIMEOUT)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()


def gather_views(z: torch.Tensor, world: int) -> torch.Tensor:
    """(2, B, D) of each of `world` ranks, with equal B -> (2, G, D) in rank order; without a gradient."""
    if world == 1:
        return z.detach()
    parts = [torch.empty_like(z) for _ in range(world)]
    dist.all_gather(parts, z.detach().contiguous())
    return torch.cat(parts, dim=1)


def data_parallel(model: nn.Module, ranks: Ranks, views: torch.Tensor, comm_hook: str = "none") -> nn.Module:
    """The model as torch's DistributedDataParallel; with one rank the model itself.

    The caller must throw one backward pass away (`thrown_away`) before the first step: DDP lays out its buckets again
    after the first one of a process, and with three or more ranks the layout decides the order of additions. A resumed
    run would else differ in the last bits from an unbroken one.

    Args:
        model: on the ranks' device, training; every rank's parameters and buffers become the first rank's.
        ranks: of the run.
        views: two images (2, 1, s, s) or more, to find the parameters that the loss does not depend on; these are
            frozen, so that they stay as they are on any number of ranks.
        comm_hook: none or bf16, in which gradients travel.
    """
    if ranks.world == 1:
        return model
    with thrown_away(model, ranks.device):
        model(views).sum().backward()
        idle = [parameter for parameter in model.parameters() if parameter.grad is None]
    for parameter in idle:
        parameter.requires_grad_(False)
    parallel = DistributedDataParallel(model, gradient_as_bucket_view=True)
    # From here on running statistics are each rank's own; evaluation takes the first rank's. The argument of this name
    # is deprecated since torch 2.15, its successor not known to torch 2.11.
    parallel.broadcast_buffers = False
    if comm_hook == "bf16":
        parallel.register_comm_hook(None, _bf16)
    return parallel


def _bf16(group, bucket):  # without annotations: DDP compares them with types, and takes no text for one
    """The hook of torch by another name: under its own DDP wants NCCL, although gloo adds bfloat16, too."""
    return bf16_compress_hook(group, bucket)


@contextlib.contextmanager
def thrown_away(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Around passes that must leave no trace: buffers and random state are put back, gradients cleared.

    Args:
        model: not compiled, as no other name for its parameters is needed.
        device: where it computes.
    """
    before = [buffer.clone() for buffer in model.buffers()]
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, value in zip(model.buffers(), before, strict=True):
                    buffer.copy_(value)
            for parameter in model.parameters():
                parameter.grad = None
