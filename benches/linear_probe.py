"""A linear label-efficiency grid as one sweep, against its trials run one by one: time, and the same numbers.

Run: python -m benches.linear_probe --shards SHARDS [--fully]. Prints Markdown for benches/reports/linear_probe.md.

The grid is 5 fractions x 3 encoders x 5 seeds = 75 cells. One by one means the ordinary `cxrdist finetune`, a process
a trial, all cores for it; it computes features only for its own labelled images, val and test. Without
--fully one trial of each fraction is timed (a third before the sweep, the rest after it) and counted 15 times, since
encoder and seed do not change the work. The encoders are files of random weights: what they know does not change
their speed, and their AUROC is still compared.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from cxrdist.core.backbones import build_backbone, save_encoder
from results import schema
from results.run import Run

FRACTIONS = (0.01, 0.1, 0.25, 0.5, 1.0)
SEEDS = 5
ENCODERS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", required=True)
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--fully", action="store_true", help="time all 75 trials one by one")
    options = parser.parse_args()
    environment = {key: value for key, value in os.environ.items() if key not in ("OMP_NUM_THREADS", "RAY_ADDRESS")}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        encoders = [_encoder(folder / f"encoder{i}.safetensors", options, i) for i in range(ENCODERS)]
        seeds = range(SEEDS) if options.fully else (0,)
        inits = range(ENCODERS) if options.fully else (0,)
        single = [(f, i, s) for f in FRACTIONS for i in inits for s in seeds]
        if not options.fully:
            single = [(f, number % ENCODERS, 0) for number, (f, _, _) in enumerate(single)]
        third = len(single) // 3
        alone: dict[tuple[float, int, int], float] = {}
        for cell in single[:third]:
            alone[cell] = _alone(folder, options, encoders, cell, environment)
        grid = _sweep(folder, options, encoders, environment)
        for cell in single[third:]:
            alone[cell] = _alone(folder, options, encoders, cell, environment)
        differences = _differences(folder, encoders, list(alone))
    times = 75 / len(alone)
    total = sum(alone.values()) * times
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {options.arch} at {options.image_size} pixels\n")
    print("| label fraction | one trial by itself, s |\n|---|---|")
    for fraction in FRACTIONS:
        values = [value for (f, _, _), value in alone.items() if f == fraction]
        print(f"| {fraction:g} | {sum(values) / len(values):.1f} |")
    how = "measured" if options.fully else f"{len(alone)} measured, times {times:.0f}"
    print(f"\n75 trials one by one ({how}): {total:.0f} s. The sweep: {grid:.0f} s. Ratio: 1/{total / grid:.1f}.")
    print(f"Largest difference of test AUROC over {len(differences)} trials: {max(differences):.1e}.")


def _encoder(path: Path, options: argparse.Namespace, seed: int) -> Path:
    torch.manual_seed(seed)
    facts = {"arch": options.arch, "in_chans": 1, "image_size": options.image_size, "stem": "standard"}
    backbone = build_backbone(options.arch, options.image_size, stem="standard")
    save_encoder(path, backbone, {**facts, "mean": 0.5, "std": 0.25, "dataset": f"random{seed}"})
    return path


def _alone(
    folder: Path,
    options: argparse.Namespace,
    encoders: list[Path],
    cell: tuple[float, int, int],
    environment: dict[str, str],
) -> float:
    fraction, init, seed = cell
    words = [sys.executable, "-m", "jobs.cli", "finetune", "--shards", options.shards, "--mode", "linear"]
    words += ["--init", str(encoders[init]), "--label_fraction", str(fraction), "--seed", str(seed)]
    words += ["--out", str(folder / f"alone-{fraction}-{init}-{seed}")]
    began = time.perf_counter()
    subprocess.run(words, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def _sweep(folder: Path, options: argparse.Namespace, encoders: list[Path], environment: dict[str, str]) -> float:
    words = [sys.executable, "-m", "jobs.cli", "sweep", "--config", "jobs/specs/linear_probe.toml"]
    words += ["--shards", options.shards, "--init", ",".join(map(str, encoders)), "--out", str(folder / "sweep")]
    began = time.perf_counter()
    subprocess.run(words, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def _differences(folder: Path, encoders: list[Path], cells: list[tuple[float, int, int]]) -> list[float]:
    """|test AUROC by itself - in the sweep| of each trial that was run both ways."""
    found = {}
    for path in (folder / "sweep" / "cells").glob("[!.]*"):
        config = Run(path).read_config()
        found[config["label_fraction"], config["init"], config["seed"]] = _auroc(Run(path))
    out = []
    for fraction, init, seed in cells:
        alone = _auroc(Run(folder / f"alone-{fraction}-{init}-{seed}"))
        out.append(abs(alone - found[fraction, str(encoders[init]), seed]))
    return out


def _auroc(run: Run) -> float:
    rows = schema.read_metrics(run.metrics).to_pylist()
    return next(row["value"] for row in rows if row["label"] == "macro" and row["metric"] == "auroc")


if __name__ == "__main__":
    main()
