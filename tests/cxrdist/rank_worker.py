"""Worker of test_distributed: loss, gradients and views of one global batch for several models, by every rank."""

from pathlib import Path
from typing import Any

import torch

from cxrdist.core import rng
from cxrdist.core.augment import Augment
from cxrdist.core.backbones import build_backbone
from cxrdist.core.distributed import Ranks, data_parallel, join
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


def measure(case: str, ranks: Ranks, pool: Pool, order: Order, augment: Augment) -> dict[str, Any]:
    """One step of one model."""
    name, arch, norm, dtype, micro_batch = CASES[case]
    torch.manual_seed(rng.mix(0, 0))
    backbone: Any = build_backbone(arch, 32)
    expander = [32, 32, 16] if norm else [16]
    method: Method = VICReg(VICRegConfig(expander=expander))
    if name == "simclr":
        method = SimCLR(HeadConfig(dim=16, hidden=32, norm=norm), 0.2)
    model = JointEmbedding(backbone, method.head(backbone.num_features))
    model = model.to(dtype).train()
    if norm:
        synchronise(model, ranks)
    parallel = data_parallel(model, ranks, torch.zeros(2, 1, 32, 32, dtype=dtype))
    step = Step(parallel, ranks.device, "float32", method.loss, micro_batch or None)
    step.rehearse(torch.zeros(2, 1, 32, 32, dtype=dtype))
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
    return found | {f"buffer {name}": b for name, b in model.named_buffers()}


def main(shards: str, out: str) -> None:
    """Write OUT/WORLD-RANK.pt."""
    values = {"shards": shards, "out": out, "image_size": 32, "global_batch": 16, "device": "cpu"}
    pool, order, augment = open_data(from_dict(PretrainConfig, values))
    with join(torch.device("cpu")) as ranks:
        found = {case: measure(case, ranks, pool, order, augment) for case in CASES}
        torch.save(found, Path(out) / f"{ranks.world}-{ranks.rank}.pt")
