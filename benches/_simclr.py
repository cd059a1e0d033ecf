"""The two sides of the pretraining benches: cxrdist's parts as the worker joins them, and lightly's documented loop.

Shapes: B batch, V = 2B views.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cxrdist.core.augment import Augment
from cxrdist.core.augment_config import AugmentConfig
from cxrdist.core.backbones import build_backbone
from cxrdist.core.device import resolve_precision
from cxrdist.pretrain.config import HeadConfig, OptimConfig
from cxrdist.pretrain.losses.nt_xent import nt_xent
from cxrdist.pretrain.optim import build_optimizer, set_rate
from cxrdist.pretrain.simclr import SimCLR
from cxrdist.pretrain.step import JointEmbedding, Step
from shards import Order, ShardSet
from shards.read.loader import Loader


def timed(work: Callable[[], Any], device: torch.device) -> tuple[float, float]:
    """Wall seconds and CPU seconds (with ended children) of some work."""
    synchronise(device)
    wall, cpu = time.perf_counter(), _cpu_seconds()
    work()
    synchronise(device)
    return time.perf_counter() - wall, _cpu_seconds() - cpu


def synchronise(device: torch.device) -> None:
    """Wait for the GPU, where there is one."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system + _living_children()


def _living_children() -> float:
    """CPU seconds of child processes that have not ended (a DataLoader's workers)."""
    tick, total = os.sysconf("SC_CLK_TCK"), 0.0
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()
                total += (int(fields[11]) + int(fields[12])) / tick
    return total


class Ours:
    """The training step of cxrdist.pretrain on a shard set."""

    def __init__(
        self, folder: Path, arch: str, size: int, batch: int, device: torch.device, *, precision: str = "auto",
        workers: int = 1, compiled: bool = False,
    ) -> None:  # fmt: skip
        self.device, self.batch, self.workers = device, batch, workers
        self.shards = ShardSet(folder, "train")
        self.order = Order(len(self.shards), seed=0, global_batch=batch)
        stored = min(self.shards.card.image_size, 8 * -(-5 * size // 32))
        self.augment = Augment(AugmentConfig(), stored, size, device)
        torch.manual_seed(0)
        backbone: Any = build_backbone(arch, size, stem="standard")
        method = SimCLR(HeadConfig(), 0.1)
        model = JointEmbedding(backbone, method.head(backbone.num_features))
        self.model = model.to(device).to(memory_format=torch.channels_last).train()
        self.precision = resolve_precision(precision, device, size)
        forward: Any = torch.compile(self.model) if compiled else self.model
        self.forward = forward
        self._step = Step(forward, device, self.precision, method.loss)
        self.optimizer = build_optimizer(OptimConfig(), [self.model], on_gpu=device.type == "cuda")
        set_rate(self.optimizer, 1e-3)
        self.views = torch.randn(2 * batch, 1, size, size, device=device).contiguous(memory_format=torch.channels_last)
        self._loader: Iterator[Any] | None = None
        self.source: Loader | None = None
        self.spent = {"wait for data": 0.0, "augment": 0.0, "forward, loss, backward": 0.0, "optimiser": 0.0}

    def bare(self, steps: int) -> None:
        """Forward and backward of the same model on views that are already there; no loss, no optimiser."""
        for _ in range(steps):
            self.optimizer.zero_grad(set_to_none=True)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                z = self.forward(self.views)
            z.float().square().mean().backward()

    def in_memory(self, steps: int) -> None:
        """Whole steps on one batch of images that is already on the device."""
        images = torch.zeros(self.batch, 1, self.augment.in_size, self.augment.in_size, dtype=torch.uint8)
        images = images.random_(0, 256).to(self.device)
        for step in range(steps):
            self._train(step, images)

    def steps(self, steps: int) -> None:
        """Whole steps from the tars, as the worker does them; the loader stays warm between calls."""
        if self._loader is None:
            self.source = Loader(
                self.shards, self.order, start_step=0, stop_step=10**9, workers=self.workers,
                size=self.augment.in_size, pin=self.device.type == "cuda",
            )  # fmt: skip
            self._loader = iter(self.source)
        for _ in range(steps):
            began = time.perf_counter()
            step, _, images = next(self._loader)
            self.spent["wait for data"] += time.perf_counter() - began
            self._train(step, images)

    def _train(self, step: int, images: torch.Tensor) -> None:
        began = time.perf_counter()
        images = images.to(self.device, non_blocking=True)
        first, second = (
            self.augment.apply(images, self.augment.draw(0, step, self.batch, view)).contiguous(
                memory_format=torch.channels_last
            )
            for view in (0, 1)
        )
        viewed = time.perf_counter()
        self.optimizer.zero_grad(set_to_none=True)
        self._step(first, second)
        learnt = time.perf_counter()
        self.optimizer.step()
        self.spent["augment"] += viewed - began
        self.spent["forward, loss, backward"] += learnt - viewed
        self.spent["optimiser"] += time.perf_counter() - learnt

    def close(self) -> None:
        """Stop the loader's threads."""
        self._loader = None


class Lightly:
    """SimCLR as lightly's documentation trains it: its transform, loss and head, torchvision's ResNet, SGD."""

    def __init__(
        self, folder: Path, arch: str, size: int, batch: int, device: torch.device, *, amp: bool, workers: int
    ) -> None:
        import torchvision
        from lightly.data import LightlyDataset
        from lightly.loss import NTXentLoss
        from lightly.models.modules import SimCLRProjectionHead
        from lightly.transforms.simclr_transform import SimCLRTransform

        self.device, self.amp, self.batch = device, amp, batch
        resnet = getattr(torchvision.models, arch)()
        self.backbone = nn.Sequential(*list(resnet.children())[:-1]).to(device)
        self.head = SimCLRProjectionHead(resnet.fc.in_features, resnet.fc.in_features, 128).to(device)
        self.criterion = NTXentLoss()
        self.optimizer = torch.optim.SGD([*self.backbone.parameters(), *self.head.parameters()], lr=0.06)
        transform: Any = SimCLRTransform(input_size=size)
        dataset: Any = LightlyDataset(str(folder), transform=transform)
        self.data = torch.utils.data.DataLoader(
            dataset, batch_size=batch, shuffle=True, drop_last=True, num_workers=workers,
            persistent_workers=workers > 0 and device.type == "cuda", pin_memory=device.type == "cuda",
        )  # fmt: skip
        self._batches: Iterator[Any] = self._forever()

    def rest(self) -> None:
        """End the loader's workers, so that nothing is prepared while others are measured."""
        self._batches = self._forever()

    def _forever(self) -> Iterator[Any]:
        while True:
            yield from self.data

    def steps(self, steps: int) -> None:
        """Whole steps of the documented loop."""
        for _ in range(steps):
            (x0, x1), *_ = next(self._batches)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp):
                z0, z1 = (self.head(self.backbone(x.to(self.device)).flatten(start_dim=1)) for x in (x0, x1))
            loss = self.criterion(z0.float(), z1.float())
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()


def as_folder(shards: Path, out: Path) -> Path:
    """The stored JPEGs of a shard set as files, for loaders that read folders."""
    source = ShardSet(shards, "train")
    (out / "all").mkdir(parents=True)
    for i in range(len(source)):
        (out / "all" / f"{i:06d}.jpg").write_bytes(source.stored(i))
    return out


def check_losses_agree() -> None:
    """The two losses are the same function; else the comparison would mean nothing."""
    from lightly.loss import NTXentLoss

    z1, z2 = torch.randn(2, 16, 8)
    assert abs(float(nt_xent(z1, z2, 0.5)) - float(NTXentLoss(0.5)(z1, z2))) < 1e-5
