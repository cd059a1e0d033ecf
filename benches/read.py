"""Reading 256-pixel shards: decoded grey uint8 batches, against the bare decoder and two common ways to do it.

Run: python -m benches.read [--samples 2100] [--rounds 5]. Prints Markdown for benches/reports/read.md.

Everything runs in one process on hot files, taking turns; of each the best of the rounds is kept, so that the ratios
compare like with like; on a busy machine those by CPU time are the steadier ones. Targets: >= 0.90 of the bare
decoder per core, >= 1.5x webdataset + PIL, >= 3x torchvision ImageFolder + PIL.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision.io
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import Compose, Grayscale, PILToTensor, ToTensor
from webdataset.compat import WebDataset

from benches._xrays import shard_set
from shards import Order, ShardSet
from shards.read.loader import Loader

BATCH = 50
OURS = "ours, in the process"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=2100)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # torchvision announces the end of its decoders, webdataset leaves files open
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        kind, folder, card = shard_set(Path(scratch), options.samples)
        ways = _ways(folder, _as_folder(folder, Path(scratch) / "folder"))
        stored = sum(entry["bytes"] for entry in card.shards) / card.n_samples / 1000
        wall, cpu = _measure(ways, options.samples, options.rounds)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"{options.samples} samples of 256 pixels ({kind}), {stored:.1f} kB each in the tar, batches of {BATCH}\n")
    print("| way | images/s | images per CPU second | ours in the process is, by time | by CPU time |")
    print("|---|---|---|---|---|")
    for name in ways:
        ratios = f"{wall[OURS] / wall[name]:.2f}x | {cpu[OURS] / cpu[name]:.2f}x"
        print(f"| {name} | {wall[name]:.0f} | {cpu[name]:.0f} | {ratios} |")


def _measure(ways: dict[str, Callable[[], int]], n: int, rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    wall, cpu = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0.0)
    for _ in range(rounds):
        for name, way in ways.items():
            wall_began, cpu_began = time.perf_counter(), time.process_time()
            count = way()
            wall[name] = max(wall[name], n / (time.perf_counter() - wall_began))
            cpu[name] = max(cpu[name], n / (time.process_time() - cpu_began))
            assert count == n, (name, count)
    return wall, cpu


def _as_folder(shards: Path, folder: Path) -> Path:
    """The same JPEG files as loose files in one class folder."""
    shardset = ShardSet(shards)
    (folder / "train").mkdir(parents=True)
    for i in range(len(shardset)):
        (folder / "train" / f"{shardset.index.key(i)}.jpg").write_bytes(shardset.stored(i))
    return folder


def _ways(shards: Path, folder: Path) -> dict[str, Callable[[], int]]:
    shardset = ShardSet(shards, "train")
    raw = [torch.frombuffer(bytearray(shardset.stored(i)), dtype=torch.uint8) for i in range(len(shardset))]
    urls = [str(path) for path in sorted(shards.glob("*.tar"))]

    def bare() -> int:
        return sum(len(torchvision.io.decode_jpeg(data)) for data in raw)  # one channel each

    def ours(workers: int) -> Callable[[], int]:
        order = Order(len(shardset), seed=0, global_batch=BATCH)
        return lambda: sum(
            len(images) for _, _, images in Loader(shardset, order, stop_step=order.steps(1), workers=workers)
        )

    def web(decode: Callable[[bytes], torch.Tensor]) -> Callable[[], int]:
        def run() -> int:
            stream = WebDataset(urls, shardshuffle=False).to_tuple("jpg").map_tuple(decode).batched(BATCH)
            return sum(len(batch[0]) for batch in iter(stream))  # type: ignore[arg-type]

        return run

    def image_folder(transform) -> Callable[[], int]:
        return lambda: sum(
            len(images) for images, _ in DataLoader(ImageFolder(str(folder), transform), BATCH, shuffle=True)
        )

    grey = Compose([Grayscale(), PILToTensor()])
    return {
        "bare torchvision.io.decode_jpeg, bytes in memory, no batches": bare,
        OURS: ours(0),
        "ours, 1 thread ahead": ours(1),
        f"ours, {os.cpu_count()} threads ahead": ours(os.cpu_count() or 1),
        "webdataset + PIL, grey uint8": web(lambda data: PILToTensor()(Image.open(io.BytesIO(data)).convert("L"))),
        "ImageFolder + PIL, ToTensor (its documented use)": image_folder(ToTensor()),
        "ImageFolder + PIL, uint8 RGB": image_folder(PILToTensor()),
        "ImageFolder + PIL, uint8 grey": image_folder(grey),
    }


if __name__ == "__main__":
    main()
