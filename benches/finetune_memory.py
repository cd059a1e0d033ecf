"""User and system time of a small full fine-tuning on the CPU, with memory that tensors give back kept, and without.

Run: python -m benches.finetune_memory with, and the same with `without`; each needs a process of its own. Prints one
line for benches/reports/finetune_memory.md.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import warnings
from pathlib import Path

import cv2
import numpy as np

from cxrdist.core import device
from cxrdist.finetune import identity, trial
from cxrdist.finetune.parse import from_plain
from jobs import cli

SIDE, IMAGES = 224, 160


def main() -> None:
    """Train and print."""
    if sys.argv[1:] not in (["with"], ["without"]):
        sys.exit(__doc__)
    warnings.simplefilter("ignore")
    if sys.argv[1] == "without":
        device.keep_freed_memory = lambda: False
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "shards": str(_shards(Path(folder))), "out": f"{folder}/run", "arch": "resnet18", "image_size": SIDE,
            "global_batch": 32, "min_steps": 8, "epochs": 2, "device": "cpu", "precision": "float32", "threads": 1,
        }  # fmt: skip
        config = identity.resolve(from_plain(settings, "bench"))
        run = identity.make_run(config, command=["bench"])
        before = resource.getrusage(resource.RUSAGE_SELF)
        trial.run_trial(config, run)
        after = resource.getrusage(resource.RUSAGE_SELF)
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    faults, peak = after.ru_minflt - before.ru_minflt, after.ru_maxrss / 1024
    print(f"| {sys.argv[1]} | {user:.1f} | {system:.1f} | {faults:,} | {peak:.0f} |")


def _shards(folder: Path) -> Path:
    """A shard set of noise with one label, in patients of one image."""
    source, generator = folder / "source", np.random.default_rng(0)
    source.mkdir()
    rows = ["path,patient,pneumonia"]
    for number in range(IMAGES):
        cv2.imwrite(str(source / f"{number}.png"), generator.integers(0, 256, (SIDE, SIDE)).astype(np.uint8))
        rows.append(f"{number}.png,{number},{number % 2}")
    (source / "table.csv").write_text("\n".join(rows) + "\n")
    words = ["--src", str(source), "--out", str(folder / "set"), "--table", "table.csv", "--patient_column", "patient"]
    assert cli.main(["shard", "csv", *words, "--size", str(SIDE), "--workers", "1"]) == 0
    return folder / "set"


if __name__ == "__main__":
    main()
