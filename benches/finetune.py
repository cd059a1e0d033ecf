"""Fine-tuning on the CPU: whole steps and features of frozen networks, against the bare model and a plain timm loop.

Run: python -m benches.finetune [--sizes 128 224] [--rounds 3]. Prints Markdown for benches/reports/finetune.md.

Steps are those of a trial of mode full, ResNet-18: images decoded once and kept, the preset `medical`, AdamW. The bare
model does forward and backward on views that are there already. The plain loop is what a script around timm does: JPEG
files through torchvision's transforms of the same kinds in a DataLoader's workers, float32, AdamW. Each way has a
process of its own; they take turns, and the best round counts. Targets: >= 0.9 of the bare model, >= 1.5x the plain
loop; features with their decoding >= 0.9 of the bare forward.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benches._simclr import timed
from benches._xrays import Repeated, sources
from benches.pretrain import cpu_name
from cxrdist.core.augment_params import resolve
from cxrdist.core.device import autocast, cpu_has_bf16, keep_freed_memory, usable_cores
from cxrdist.finetune import identity
from cxrdist.finetune.heads import masked_bce
from cxrdist.finetune.parse import from_plain
from cxrdist.finetune.trial import Trial
from shards import ShardSet
from shards.convert.config import ConvertConfig
from shards.convert.engine import convert
from shards.convert.plan import build
from shards.convert.sample import Sample

CPU = torch.device("cpu")
SPLITS = {"train": 256, "val": 16, "test": 16}


@dataclass(frozen=True)
class Setting:
    """What all ways have in common."""

    shards: Path
    files: Path
    """The train images as JPEG files; the last digit of a name is even for negatives."""
    scratch: Path
    size: int
    batch: int
    threads: int


class Ours:
    """The steps of a trial, and the features of a frozen one."""

    def __init__(self, setting: Setting) -> None:
        self.batch = setting.batch
        full = _trial(setting, "full")
        next(full.train())  # two steps and a validation: everything is set up
        assert full.fit is not None
        self.fit, self.step = full.fit, full.fit.state.step
        self.linear = _trial(setting, "linear")
        self.precision = full.precision

    def steps(self, count: int) -> int:
        """Optimiser steps of the trial; returns the images."""
        for _ in range(count):
            float(self.fit._step(self.step % self.fit.total))
            self.step += 1
        return count * self.batch

    def features(self, count: int) -> int:
        """Decode and compute the train split, `count` times; returns the images."""
        for _ in range(count):
            self.linear.network._pixels.clear()
            self.linear.network._kept.clear()
            self.linear.network.features(self.linear.data.train)
        return count * SPLITS["train"]


class Bare:
    """The same models on inputs that are there already."""

    def __init__(self, setting: Setting) -> None:
        full, self.linear = _trial(setting, "full"), _trial(setting, "linear")
        self.model, self.precision, self.batch = full.model.train(), full.precision, setting.batch
        self.linear.model.eval()
        shape = (1, setting.size, setting.size)
        self.views = torch.randn(setting.batch, *shape).contiguous(memory_format=torch.channels_last)
        self.images = torch.randn(64, *shape).contiguous(memory_format=torch.channels_last)
        self.truth = torch.randint(0, 2, (setting.batch, 1)).float()

    def steps(self, count: int) -> int:
        """Forward and backward; returns the images."""
        ones = torch.ones(1)
        for _ in range(count):
            self.model.zero_grad(set_to_none=True)
            with autocast(CPU, self.precision):
                logits = self.model(self.views)
            masked_bce(logits, self.truth, torch.ones_like(self.truth, dtype=torch.bool), (ones, ones)).backward()
        return count * self.batch

    @torch.inference_mode()
    def features(self, count: int) -> int:
        """The backbone on as many images; returns them."""
        for _ in range(count * SPLITS["train"] // 64):
            with autocast(CPU, self.linear.precision):
                self.linear.model.backbone(self.images)
        return count * SPLITS["train"]


class Files(torch.utils.data.Dataset):
    """Image files with their labels, as a script writes it."""

    def __init__(self, folder: Path, transform: Callable[[Any], torch.Tensor]) -> None:
        self.paths, self.transform = sorted(folder.glob("*.jpg")), transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        from PIL import Image

        path = self.paths[index]
        return self.transform(Image.open(path).convert("L")), torch.tensor([float(int(path.stem[-1]) % 2)])


class Plain:
    """A training loop around timm and torch's DataLoader."""

    precision = "float32"

    def __init__(self, setting: Setting) -> None:
        import timm
        from torchvision import transforms as t

        ours = resolve(_trial(setting, "full").config.augment)
        shift, tone = ours["translate"], (ours["brightness"], ours["contrast"])
        transform = t.Compose([
            t.RandomResizedCrop(setting.size, scale=tuple(ours["crop"]), ratio=(1 / ours["aspect"], ours["aspect"])),
            t.RandomHorizontalFlip(ours["flip"]),
            t.RandomAffine(ours["rotate"], translate=(shift, shift)),
            t.RandomApply([t.ColorJitter(*tone)], ours["tone_p"]),
            t.RandomApply([t.GaussianBlur(5, (0.1, 1.0))], ours["blur_p"]),
            t.ToTensor(),
            t.Normalize([0.5], [0.25]),
            t.RandomErasing(ours["erase_p"]),
        ])  # fmt: skip
        torch.manual_seed(0)
        self.model = timm.create_model("resnet18", in_chans=1, num_classes=1).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.criterion = nn.BCEWithLogitsLoss()
        self.batch = setting.batch
        self.loader = torch.utils.data.DataLoader(
            Files(setting.files, transform),
            setting.batch, shuffle=True, drop_last=True, num_workers=setting.threads,
        )  # fmt: skip
        self.batches: Iterator[Any] = self._forever()

    def _forever(self) -> Iterator[Any]:
        while True:
            yield from self.loader

    def steps(self, count: int) -> int:
        """Steps of the loop; returns the images."""
        for _ in range(count):
            images, labels = next(self.batches)
            loss = self.criterion(self.model(images), labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            loss.item()
        return count * self.batch

    def rest(self) -> None:
        """End the workers, so that nothing is prepared while others are measured."""
        self.batches = self._forever()


WAYS: dict[str, type[Any]] = {"ours": Ours, "bare": Bare, "plain timm and DataLoader": Plain}


def _trial(setting: Setting, mode: str) -> Trial:
    out = tempfile.mkdtemp(dir=setting.scratch) + "/run"
    settings = {
        "shards": str(setting.shards), "out": out, "arch": "resnet18", "stem": "standard", "mode": mode,
        "image_size": setting.size, "global_batch": setting.batch, "epochs": 1000, "eval_steps": 2, "patience": None,
        "device": "cpu", "threads": setting.threads,
    }  # fmt: skip
    config = identity.resolve(from_plain(settings, "bench"))
    return Trial(config, identity.make_run(config, command=["bench"]))


def _work(pipe: Connection, way: str, setting: Setting) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(setting.threads)
    if way in ("ours", "bare"):
        keep_freed_memory()  # as the worker of cxrdist.finetune does
    side = WAYS[way](setting)
    pipe.send(side.precision)
    while (asked := pipe.recv()) is not None:
        what, warm, count = asked
        work = getattr(side, what)
        work(warm)
        done: list[int] = []
        wall, cpu = timed(lambda work=work, count=count, done=done: done.append(work(count)), CPU)
        pipe.send((done[0] / wall, done[0] / cpu))
        getattr(side, "rest", lambda: None)()


def measure(setting: Setting, rounds: int) -> None:
    """Let the ways take turns, and print their rates."""
    context, pipes, processes = multiprocessing.get_context("spawn"), {}, []
    for way in WAYS:
        pipes[way], theirs = context.Pipe()
        processes.append(context.Process(target=_work, args=(theirs, way, setting)))
        processes[-1].start()
        theirs.close()
    precision = {way: pipe.recv() for way, pipe in pipes.items()}
    best: dict[tuple[str, str], tuple[float, float]] = {}
    for _ in range(rounds):
        for what, warm, count in (("steps", 2, 4), ("features", 0, 1)):
            for way, pipe in pipes.items():
                if what == "features" and way not in ("ours", "bare"):
                    continue
                pipe.send((what, warm, count))
                found, before = pipe.recv(), best.get((what, way), (0.0, 0.0))
                best[what, way] = (max(found[0], before[0]), max(found[1], before[1]))
    for pipe in pipes.values():
        pipe.send(None)
    for process in processes:
        process.join()
    print(f"\n## {setting.size} pixels, batches of {setting.batch}, {setting.threads} threads\n")
    print("| what | way | precision | images/s | ours is | by CPU time |\n|---|---|---|---|---|---|")
    for (what, way), (wall, cpu) in best.items():
        ours = best[what, "ours"]
        print(f"| {what} | {way} | {precision[way]} | {wall:.1f} | {ours[0] / wall:.2f}x | {ours[1] / cpu:.2f}x |")


def labelled_set(scratch: Path) -> tuple[str, Path]:
    """What the images are, and a shard set of them at 256 pixels with one label."""
    kind, paths = sources(scratch)
    names = [(split, number) for split, count in SPLITS.items() for number in range(count)]
    samples = (
        Sample(source=str(i), key=f"{i:06d}", split=split, patient_id=f"{split}{number}", labels={"edema": number % 2})
        for i, (split, number) in enumerate(names)
    )
    plan = build(samples, name="bench", labels=("edema",), split_scheme="bench", opener=Repeated(paths))
    out = scratch / "set"
    assert convert(plan, ConvertConfig(src="", out=str(out)), say=lambda line: None) is not None
    return f"{len(paths)} {kind}, repeated", out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 224])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=usable_cores(), help="of all ways")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"{cpu_name()}, {usable_cores()} cores, bf16 {'yes' if cpu_has_bf16() else 'no'}, ", end="")
    print(f"torch {torch.__version__}, load {os.getloadavg()[0]:.1f}\n")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        kind, shards = labelled_set(scratch)
        files, source = scratch / "files", ShardSet(shards, "train")
        files.mkdir()
        for number in range(len(source)):
            (files / f"{number:06d}.jpg").write_bytes(source.stored(number))
        print(f"{SPLITS['train']} train images of 256 pixels ({kind}), ResNet-18")
        for size in options.sizes:
            measure(Setting(shards, files, scratch, size, options.batch, options.threads), options.rounds)
    print(f"\nLoad at the end: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
