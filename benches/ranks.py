"""Ranks against threads on one machine: `cxrdist pretrain` with a rank per core (gloo) and with one rank on all cores.

Run: python -m benches.ranks [--size 128] [--batch 64] [--steps 24] [--rounds 2]. Prints Markdown.

Every run is the real command with the same configuration but `nproc`; its speed is the median of images/s over the
second half of the steps it logged, the runs take turns, the best round counts. Efficiency is the rate of N ranks of one
thread over the rate of one rank with N threads; what is lost is the exchange of embeddings and gradients.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benches._xrays import shard_set
from cxrdist.core.device import usable_cores

SECONDS = 1800


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--ranks", type=int, default=usable_cores())
    options = parser.parse_args()
    best: dict[tuple[int, bool], float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        kind, shards, _ = shard_set(Path(scratch), 512)
        for index in range(options.rounds):
            for nproc, sync in ((1, False), (options.ranks, False), (options.ranks, True)):
                run = Path(scratch) / f"run-{nproc}-{sync}-{index}"
                rate = measure(options, shards, run, nproc, sync)
                best[nproc, sync] = max(rate, best.get((nproc, sync), 0.0))
    print(f"{options.arch} at {options.size} pixels, global batch {options.batch}, {options.steps} steps, 512 samples ")
    print(f"({kind}), {usable_cores()} cores, load {os.getloadavg()[0]:.1f}\n")
    print("| ranks x threads | BatchNorm | images/s | efficiency |\n|---|---|---|---|")
    for (nproc, sync), rate in best.items():
        threads = max(1, usable_cores() // nproc)
        norm = "over the global batch" if sync else "per rank"
        print(f"| {nproc} x {threads} | {norm} | {rate:.1f} | {rate / best[1, False]:.2f} |")


def measure(options: argparse.Namespace, shards: Path, run: Path, nproc: int, sync: bool) -> float:
    """Images per second of one run."""
    command = [sys.executable, "-m", "jobs.cli", "pretrain", "--shards", str(shards), "--out", str(run)]
    command += ["--arch", options.arch, "--image_size", str(options.size), "--global_batch", str(options.batch)]
    command += ["--steps", str(options.steps), "--nproc", str(nproc), "--sync_bn", str(sync).lower(), "--device", "cpu"]
    command += ["--log_every", "2", "--watch.every_epochs", "0", "--tensorboard", "false"]
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    subprocess.run(command, check=True, env=environment, timeout=SECONDS, stdout=subprocess.DEVNULL)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rates = [row["images_per_s"] for row in rows if "images_per_s" in row]
    return statistics.median(rates[len(rates) // 2 :])


if __name__ == "__main__":
    main()
