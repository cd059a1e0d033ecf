"""Pretraining on the CPU: two views per core, and whole steps, against lightly and against the bare model.

Run: python -m benches.pretrain [--sizes 224 128] [--rounds 3]. Prints Markdown for benches/reports/pretrain.md.

Both sides read the same 256-pixel JPEGs on the same cores, take turns within one run, each in its own process, and
the best of the rounds is kept. Targets on a CPU with AMX: >= 5x lightly's images/s at 224 and >= 3.5x at 128, >= 0.9
of the bare forward and backward; on any CPU >= 3x its SimCLRTransform per core.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import warnings
from pathlib import Path

import torch

from benches._sides import Setting, Side
from benches._simclr import as_folder, check_losses_agree, timed
from benches._xrays import shard_set
from cxrdist.core.augment import Augment
from cxrdist.core.augment_config import AugmentConfig
from cxrdist.core.device import cpu_has_bf16, usable_cores
from shards import ShardSet

CPU = torch.device("cpu")
Best = dict[str, tuple[float, float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 128])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=usable_cores(), help="of both sides")
    parser.add_argument(
        "--workers", type=int, help="of lightly's loader (default: one per thread); 0: in the process, ours too"
    )
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # lightly's and torchvision's deprecations
    check_losses_agree()
    print(f"{cpu_name()}, {usable_cores()} cores, bf16 {'yes' if cpu_has_bf16() else 'no'}, AMX {_amx()}, ", end="")
    print(f"torch {torch.__version__}, load {os.getloadavg()[0]:.1f}\n")
    with tempfile.TemporaryDirectory() as scratch:
        kind, shards, _ = shard_set(Path(scratch), options.samples)
        folder = as_folder(shards, Path(scratch) / "folder")
        print(f"{options.samples} samples of 256 pixels ({kind}), batch {options.batch}\n")
        views(shards, options.rounds)
        for size in options.sizes:
            workers = options.threads if options.workers is None else options.workers
            steps(Setting(shards, folder, "resnet18", size, options.batch, options.threads, workers), options.rounds)


def keep_best(best: Best, name: str, images: int, spent: tuple[float, float]) -> None:
    """Remember the highest rates: images per second and per CPU second."""
    rates = images / spent[0], images / max(spent[1], 1e-9)
    before = best.get(name, (0.0, 0.0))
    best[name] = max(before[0], rates[0]), max(before[1], rates[1])


def views(shards: Path, rounds: int) -> None:
    """Two views of decoded images, one thread each side."""
    import numpy as np
    from lightly.transforms.simclr_transform import SimCLRTransform
    from PIL import Image

    count = 64
    stored = ShardSet(shards, "train").images(np.arange(count))
    pictures = [Image.fromarray(image.numpy()[0]).convert("RGB") for image in stored]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    theirs = SimCLRTransform(input_size=224)
    best: Best = {}
    for index in range(rounds + 1):
        for preset in ("medical", "natural"):
            ours = Augment(AugmentConfig(preset=preset), 256, 224)

            def both(ours: Augment = ours, step: int = index) -> None:
                for view in (0, 1):
                    ours.apply(stored, ours.draw(0, step, count, view))

            keep_best(best, f"ours, {preset}", count, timed(both, CPU))
        keep_best(best, "lightly", count, timed(lambda: [theirs(picture) for picture in pictures], CPU))
    torch.set_num_threads(threads)
    print("## Two views of a decoded image, 256 -> 224 pixels, one core\n")
    print("| way | images/s | images per CPU second | times lightly, by time | by CPU time |\n|---|---|---|---|---|")
    _rows(best, "lightly")


WAYS = {
    "ours": "ours",
    "bare": "bare forward and backward",
    "lightly float32": "lightly, float32",
    "lightly bf16": "lightly, bf16 autocast",
}


def steps(setting: Setting, rounds: int, warm: int = 2, measured: int = 4) -> None:
    """Whole training steps of ResNet-18, and where ours spends its time."""
    sides = {way: Side(way, setting) for way in WAYS}
    best: Best = {}
    spent: dict[str, float] = {}
    for _ in range(rounds):
        for way, side in sides.items():
            wall, cpu, parts = side.turn(warm, measured)
            keep_best(best, WAYS[way], measured * setting.batch, (wall, cpu))
            if way == "ours":
                spent = {name: spent.get(name, 0.0) + seconds for name, seconds in parts.items()}
    for side in sides.values():
        side.close()
    precision = sides["ours"].precision
    print(f"\n## Whole steps of ResNet-18 at {setting.size} pixels, {setting.threads} threads, ours in {precision}\n")
    print("| way | images/s (two views each) | ours is | by CPU time |\n|---|---|---|---|")
    for name, (wall, cpu) in best.items():
        ours = best[WAYS["ours"]]
        print(f"| {name} | {wall:.1f} | {ours[0] / wall:.2f}x | {ours[1] / cpu:.2f}x |", flush=True)
    total = sum(spent.values())
    print("\nOurs spends: " + ", ".join(f"{name} {100 * s / total:.1f} %" for name, s in spent.items()))


def _rows(best: Best, reference: str) -> None:
    for name, (wall, cpu) in best.items():
        print(f"| {name} | {wall:.0f} | {cpu:.0f} | ", end="")
        print(f"{wall / best[reference][0]:.1f}x | {cpu / best[reference][1]:.1f}x |")


def cpu_name() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return "unknown CPU"


def _amx() -> str:
    try:
        return "yes" if "amx_bf16" in Path("/proc/cpuinfo").read_text() else "no"
    except OSError:
        return "unknown"


if __name__ == "__main__":
    main()
