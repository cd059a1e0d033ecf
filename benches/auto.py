"""What `auto` and the defaults choose on this CPU, beside what else they could: precision, layout, threads, decoding.

Run: python -m benches.auto [--rounds 3]. Prints Markdown for benches/reports/pretrain.md.

Forward and backward passes of ResNet-18 as pretraining does them, best of the rounds. Rates by CPU time (one thread)
hold on a busy machine too; those by the clock need a quiet one.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benches._simclr import timed
from benches._xrays import shard_set
from benches.pretrain import cpu_name
from cxrdist.core.backbones import build_backbone
from cxrdist.core.device import autocast, cpu_has_bf16, resolve_precision, usable_cores
from cxrdist.core.distributed import Ranks
from cxrdist.pretrain.loop import default_workers
from shards import Order, ShardSet
from shards.read.loader import Loader

CPU = torch.device("cpu")
CASES = (("standard", 224, 16), ("standard", 64, 64), ("small", 64, 64), ("small", 28, 32), ("standard", 28, 256))
"""Stem, pixels, views in a pass."""
WAYS = (("float32", False), ("float32", True), ("bf16", True))
"""Precision; whether channels come last."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    cores = usable_cores()
    print(f"{cpu_name()}, {cores} cores, bf16 {'yes' if cpu_has_bf16() else 'no (emulated)'}, ", end="")
    print(f"torch {torch.__version__}, load {os.getloadavg()[0]:.1f}\n")
    passes(options.rounds, cores)
    decoding(options.rounds)


def passes(rounds: int, cores: int) -> None:
    """Views a second of forward and backward, for each precision, layout and number of threads."""
    print("Views per CPU second of one thread (in brackets: by the clock with one thread, with all cores)\n")
    names = [precision + (" channels_last" if last else "") for precision, last in WAYS]
    print(f"| stem, pixels | {' | '.join(names)} | auto takes |\n|---|{'---|' * (len(WAYS) + 1)}")
    for stem, size, count in CASES:
        shown = []
        for precision, last in WAYS:
            emulated = precision == "bf16" and not cpu_has_bf16()
            views = max(2, count // 16) if emulated else count
            work = one_pass(stem, size, views, precision, last)
            (wall, cpu), (wall_all, _) = (
                best(work, views, threads, 1 if emulated else rounds) for threads in (1, cores)
            )
            shown.append(f"{cpu:.3g} ({wall:.3g}, {wall_all:.3g})")
        chosen = resolve_precision("auto", CPU, size, stem)
        print(f"| {stem}, {size} | {' | '.join(shown)} | {chosen}, channels_last, {cores} threads |", flush=True)


def one_pass(stem: str, size: int, views: int, precision: str, last: bool) -> Callable[[], Any]:
    """A forward and a backward pass."""
    layout = torch.channels_last if last else torch.contiguous_format
    model = build_backbone("resnet18", size, stem=stem).to(memory_format=layout).train()
    images = torch.randn(views, 1, size, size).to(memory_format=layout)

    def work() -> None:
        model.zero_grad(set_to_none=True)
        with autocast(CPU, precision):
            features = model(images)
        features.float().square().mean().backward()

    return work


def best(work: Callable[[], Any], count: int, threads: int, rounds: int) -> tuple[float, float]:
    """Highest rates over the rounds: by the clock, and by CPU time."""
    torch.set_num_threads(threads)
    work()
    spent = [timed(work, CPU) for _ in range(rounds)]
    return count / min(wall for wall, _ in spent), count / max(1e-9, min(cpu for _, cpu in spent))


def decoding(rounds: int, count: int = 256) -> None:
    """Images that decoding threads deliver; pretraining on a CPU has one of them."""
    with tempfile.TemporaryDirectory() as scratch:
        kind, path, _ = shard_set(Path(scratch), count)
        shards = ShardSet(path, "train")
        print(f"\nImages a second that decoding delivers, by the clock and by CPU time ({kind}, 256 pixels)\n")
        print("| pixels | " + " | ".join(f"{n} threads" for n in (0, 1, 2)) + " | default |\n|---|---|---|---|---|")
        for size in (256, 96):
            shown = []
            for workers in (0, 1, 2):
                rates = best(lambda w=workers, s=size: deliver(shards, w, s), count, 1, rounds)
                shown.append(f"{rates[0]:.0f}, {rates[1]:.0f}")
            print(f"| {size} | {' | '.join(shown)} | {default_workers(Ranks())} |", flush=True)


def deliver(shards: ShardSet, workers: int, size: int) -> None:
    """One pass over the shard set."""
    order, steps = Order(len(shards), seed=0, global_batch=32), len(shards) // 32
    for _ in Loader(shards, order, rank=0, world=1, start_step=0, stop_step=steps, workers=workers, size=size):
        pass


if __name__ == "__main__":
    main()
