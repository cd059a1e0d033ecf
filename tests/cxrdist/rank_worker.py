"""Workers of test_distributed: loss, gradients and views of one global batch for several models, by every rank."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from cxrdist.core import rng
from cxrdist.core.augment import Augment
from cxrdist.core.backbones import build_backbone
from cxrdist.core.device import resolve_precision
from cxrdist.core.distributed import Ranks, backend, data_parallel, join
from cxrdist.pretrain.config import HeadConfig, PretrainConfig, from_dict
from cxrdist.pretrain.loop import open_data
from cxrdist.pretrain.losses.vicreg import VICReg
from cxrdist.pretrain.methods import Method, VICRegConfig
from cxrdist.pretrain.samples import Pool
from cxrdist.pretrain.simclr import SimCLR
from cxrdist.pretrain.step import JointEmbedding, Step
from cxrdist.pretrain.sync_norm import synchronise
from shards import Order
from shards.read.order import rank_slice

# name: method, architecture, BatchNorm over the global batch, type, views per forward pass (0: all)
CASES = {
    "plain": ("simclr", "test_convnext", False, torch.float32, 0),
    "parts": ("simclr", "test_convnext", False, torch.float32, 5),
    "norm": ("simclr", "resnet10t", True, torch.float32, 0),
    "double": ("simclr", "test_resnet", True, torch.float64, 0),
    "vicreg": ("vicreg", "test_resnet", True, torch.float64, 0),
    "vicreg in float32": ("vicreg", "test_convnext", False, torch.float32, 0),
    "vicreg in parts": ("vicreg", "test_convnext", False, torch.float32, 5),
}
ON_A_CARD = {name: CASES[name] for name in ("plain", "parts", "norm", "double", "vicreg")} | {
    "norm in parts": ("simclr", "test_resnet", True, torch.float64, 6)
}


def measure(
    case: tuple[str, str, bool, torch.dtype, int], ranks: Ranks, pool: Pool, order: Order, augment: Augment
) -> dict[str, Any]:
    """One step of one model."""
    name, arch, norm, dtype, micro_batch = case
    torch.manual_seed(rng.mix(0, 0))
    backbone: Any = build_backbone(arch, 32)
    expander = [32, 32, 16] if norm else [16]
    method: Method = VICReg(VICRegConfig(expander=expander))
    if name == "simclr":
        method = SimCLR(HeadConfig(dim=16, hidden=32, norm=norm), 0.2)
    model = JointEmbedding(backbone, method.head(backbone.num_features))
    model: Any = model.to(ranks.device, dtype).train()
    if norm:
        model = synchronise(model, ranks)
    nothing = torch.zeros(2, 1, 32, 32, dtype=dtype, device=ranks.device)
    parallel = data_parallel(model, ranks, nothing)
    step = Step(parallel, ranks.device, "float32", method.loss, micro_batch or None)
    step.rehearse(nothing)
    part = rank_slice(16, ranks.rank, ranks.world)
    images = pool.train.images(order.positions(3)[part], augment.in_size)
    views = [augment.apply(images, augment.draw(7, 3, part, view)) for view in (0, 1)]
    loss = step(views[0].to(dtype), views[1].to(dtype))
    found: dict[str, Any] = {
        "loss": loss,
        "views": torch.stack(views),
        "positions": torch.from_numpy(order.positions(3)),
    }
    found["gradient"] = torch.cat([p.grad.flatten().double() for p in model.parameters() if p.grad is not None])
    found["stem"] = sum(p.numel() for name, p in model.named_parameters() if name.startswith("backbone.conv1."))
    found |= {f"buffer {name}": b for name, b in model.named_buffers()}
    return {name: value.cpu() if isinstance(value, torch.Tensor) else value for name, value in found.items()}


@contextlib.contextmanager
def of_one_card(way: str | None) -> Iterator[Ranks]:
    """Ranks that compute on the first card, all of them.

    Args:
        way: what carries their tensors; None: what `join` takes. gloo carries those on a card, too.
    """
    device = torch.device("cuda", 0)
    torch.cuda.set_device(device)
    if way is None:
        with join(device) as ranks:
            yield ranks
        return
    rank, world = int(os.environ["RANK"]), int(os.environ.get("WORLD_SIZE", "1"))
    dist.init_process_group(way, rank=rank, world_size=world)
    try:
        yield Ranks(rank, world, device)
    finally:
        dist.destroy_process_group()


def main(shards: str, out: str) -> None:
    """Write OUT/WORLD-RANK.pt."""
    with join(torch.device("cpu")) as ranks:
        measure_all(shards, out, ranks, CASES)


def on_one_card(shards: str, out: str, way: str | None) -> None:
    """As `main`, by ranks that share a card; see `of_one_card`."""
    with of_one_card(way) as ranks:
        resolve_precision("float32", ranks.device, 32)
        measure_all(shards, out, ranks, ON_A_CARD)


def measure_all(shards: str, out: str, ranks: Ranks, cases: dict[str, Any]) -> None:
    """Write what this rank finds for each case to OUT/WORLD-RANK.pt."""
    os.environ["LOCAL_RANK"] = str(ranks.device.index or 0)
    values = {"shards": shards, "out": out, "image_size": 32, "global_batch": 16, "device": ranks.device.type}
    pool, order, augment = open_data(from_dict(PretrainConfig, values))
    found = {name: measure(case, ranks, pool, order, augment) for name, case in cases.items()}
    torch.save(found, Path(out) / f"{ranks.world}-{ranks.rank}.pt")


def alone_with_nccl(out: str) -> None:
    """Write what NCCL makes of a group of one rank: gathered numbers, a flag, gradients with and without DDP."""
    device = torch.device("cuda", 0)
    with of_one_card(backend(device)):
        resolve_precision("float32", device, 32)
        torch.manual_seed(0)
        sent, flag = torch.randn(4, 3, device=device), torch.tensor([3])
        gathered = [torch.empty_like(sent)]
        dist.all_gather(gathered, sent)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        model = torch.nn.Linear(3, 2).to(device)
        gradients = []
        for own in (model, DistributedDataParallel(model, gradient_as_bucket_view=True)):
            model.zero_grad()
            own(sent).square().sum().backward()
            assert model.weight.grad is not None
            gradients.append(model.weight.grad.cpu().clone())
        found = {"sent": sent.cpu(), "gathered": gathered[0].cpu(), "flag": flag, "gradients": gradients}
        torch.save(found, Path(out) / "alone.pt")
