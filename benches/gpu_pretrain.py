"""Pretraining on a GPU: does the loader keep up, what does torch.compile bring, and how does lightly with AMP fare?

Run: make bench-gpu, or python -m benches.gpu_pretrain [--arch resnet50] [--batch 256] [--steps 30]. Prints Markdown.

Targets: >= 0.95 of the step rate on data already in memory, >= 1.5x lightly with AMP on the same card. The model's FLOP
share is its counted forward and backward work over the card's own rate on a large bf16 product, measured here too.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from benches._simclr import Lightly, Ours, as_folder, check_losses_agree, timed
from benches._xrays import shard_set
from cxrdist.core.device import usable_cores


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--samples", type=int, default=4000)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("gpu_pretrain needs a CUDA device; benches.pretrain is the same for the CPU", file=sys.stderr)
        return 2
    warnings.simplefilter("ignore")
    check_losses_agree()
    device, cores = torch.device("cuda", 0), usable_cores()
    peak = matrix_rate(device)
    print(f"{torch.cuda.get_device_name(0)}, {cores} CPU cores, torch {torch.__version__}, ", end="")
    print(f"bf16 product {peak / 1e12:.0f} TFLOP/s, load {os.getloadavg()[0]:.1f}\n")
    rows: list[tuple[str, float, float]] = []
    with tempfile.TemporaryDirectory() as scratch:
        kind, shards, _ = shard_set(Path(scratch), options.samples)
        for compiled in (False, True):
            rows += measure(options, shards, device, cores, compiled)
        folder = as_folder(shards, Path(scratch) / "folder")
        lightly = Lightly(folder, options.arch, options.size, options.batch, device, amp=True, workers=cores)
        lightly.steps(2)
        rows.append(("lightly with AMP (bf16)", rate(lightly.steps, options, device), 0.0))
    work = flops(options, device)
    print(f"{options.arch} at {options.size} pixels, batch {options.batch}, {options.samples} samples ({kind})\n")
    print("| way | images/s | of in memory | times lightly | FLOP share |\n|---|---|---|---|---|")
    for name, images, memory in rows:
        of_memory = f"{images / memory:.3f}" if memory else ""
        print(f"| {name} | {images:.0f} | {of_memory} | {images / rows[-1][1]:.2f} | {work * images / peak:.2f} |")
    return 0


def measure(
    options: argparse.Namespace, shards: Path, device: torch.device, cores: int, compiled: bool
) -> list[tuple[str, float, float]]:
    """Images/s from the tars, on data in memory, and of the bare model."""
    ours = Ours(shards, options.arch, options.size, options.batch, device, workers=min(16, cores), compiled=compiled)
    began = time.perf_counter()
    ours.steps(5)
    name = "compiled" if compiled else "eager"
    print(f"{name}: first five steps {time.perf_counter() - began:.0f} s, {ours.precision}", flush=True)
    ours.in_memory(2)
    ours.bare(2)
    memory = rate(ours.in_memory, options, device)
    found = [(f"ours from the tars, {name}", rate(ours.steps, options, device), memory)]
    found += [(f"ours in memory, {name}", memory, memory)]
    found += [(f"bare forward and backward, {name}", rate(ours.bare, options, device), 0.0)]
    ours.close()
    # Said at once: the table comes last, and the time may run out before.
    print("; ".join(f"{way} {images:.0f} images/s" for way, images, _ in found), flush=True)
    return found


def rate(work, options: argparse.Namespace, device: torch.device) -> float:
    """Images per second, the best of three rounds."""
    return max(options.steps * options.batch / timed(lambda: work(options.steps), device)[0] for _ in range(3))


def flops(options: argparse.Namespace, device: torch.device) -> float:
    """Forward and backward work of one image's two views, counted operation by operation."""
    import timm

    model = timm.create_model(options.arch, in_chans=1, num_classes=0).to(device)
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(2, 1, options.size, options.size, device=device)).sum().backward()
    return float(counter.get_total_flops())


def matrix_rate(device: torch.device, side: int = 8192, repeats: int = 20) -> float:
    """FLOP/s of a large bf16 matrix product, the most this card gives in practice."""
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    for _ in range(3):
        torch.mm(a, a)
    seconds, _ = timed(lambda: [torch.mm(a, a) for _ in range(repeats)], device)
    return 2 * side**3 * repeats / seconds


if __name__ == "__main__":
    sys.exit(main())
