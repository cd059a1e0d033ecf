"""Decoding ahead of the network in fine-tuning, for images that do not fit into memory, against decoding in between.

Run: python -m benches.finetune_ahead [--threads 2]. Prints Markdown for benches/reports/finetune.md.

The network is a pause, as a GPU is for the CPU: a batch of 64 images takes it 30 or 60 ms. Both ways get the same
256-pixel JPEGs at full size and take turns; each line is the median of five rounds of 30 steps.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benches._xrays import shard_set
from cxrdist.finetune import decoded_images
from cxrdist.finetune.decoded_images import Pixels, StepImages
from shards import Order, ShardSet

STEPS, ROUNDS, BATCH = 30, 5, 64


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    decoded_images.IN_MEMORY_BYTES = 0
    with tempfile.TemporaryDirectory() as scratch:
        kind, path, _ = shard_set(Path(scratch), 600)
        shards = ShardSet(path, "train")
        positions, size = np.arange(len(shards)), shards.card.image_size
        order = Order(len(shards), seed=0, global_batch=BATCH)
        between = Pixels(shards, size, positions, None, options.threads)
        print(f"600 images ({kind}), batches of {BATCH}, {options.threads} threads, load {os.getloadavg()[0]:.1f}\n")
        print("| network, ms | in between: step, ms | waits, ms | ahead: step, ms | waits, ms |")
        print("|---:|---:|---:|---:|---:|")
        for pause in (0.03, 0.06):
            rounds: list[tuple[float, ...]] = []
            for _ in range(ROUNDS):
                ahead = StepImages(shards, positions, order, steps=STEPS, size=size, threads=options.threads, pin=False)
                serial = step_ms(lambda step: between.take(order.positions(step)), pause)
                rounds.append(serial + step_ms(ahead.take, pause))
                ahead.close()
            found = [statistics.median(column) for column in zip(*rounds, strict=True)]
            print(f"| {1e3 * pause:.0f} | " + " | ".join(f"{value:.0f}" for value in found) + " |")


def step_ms(take: Callable[[int], Any], pause: float) -> tuple[float, float]:
    """Milliseconds of a step, and those of them that the network waits for its images."""
    began, waited = time.perf_counter(), 0.0
    for step in range(STEPS):
        asked = time.perf_counter()
        take(step)
        waited += time.perf_counter() - asked
        time.sleep(pause)
    return 1e3 * (time.perf_counter() - began) / STEPS, 1e3 * waited / STEPS


if __name__ == "__main__":
    main()
