"""Fine-tuning on images decoded with room for the crops against images decoded at model size: sharpness and AUROC.

Run: python -m benches.finetune_room --shards SHARDS --image_size 64 [--seeds 8]. Prints Markdown for
benches/reports/finetune_room.md.

Both ways run the same trials (seed by seed the same labels, first weights, order and crops); they differ in `load_size`
alone. Sharpness is the mean squared Laplacian of normalised pictures: views as training cuts them (geometry alone:
noise, contrast and erasing have a Laplacian of their own), pictures of val as testing sees them, and for comparison the
same crops cut out of the stored pictures by torchvision, antialiased.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from cxrdist.core.augment import Augment
from cxrdist.core.device import keep_freed_memory
from cxrdist.finetune import identity
from cxrdist.finetune.config import run_settings
from cxrdist.finetune.loop import Validation
from cxrdist.finetune.parse import from_plain
from cxrdist.finetune.trial import Trial
from results.run import Run

WAYS = ("model size", "with room")
TONES = ("brightness", "contrast", "gamma", "blur", "noise", "erase")
LAPLACIAN = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", required=True)
    parser.add_argument("--image_size", type=int, required=True)
    parser.add_argument("--arch", default="resnet10t")
    parser.add_argument("--stem", default="auto")
    parser.add_argument("--label_fraction", type=float, default=0.1)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=8)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    keep_freed_memory()
    scores: dict[str, list[float]] = {way: [] for way in WAYS}
    energy: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(options.seeds):
            for way in WAYS:
                name = f"{seed}-{way.replace(' ', '-')}"
                if seed == 0:
                    energy |= _sharpness(_trial(options, Path(scratch) / f"cut-{name}", way, seed, off=TONES), way)
                trial = _trial(options, Path(scratch) / name, way, seed)
                scores[way].append(_trained(trial))
                print(f"<!-- seed {seed}, {way}: {scores[way][-1]:.4f} -->", flush=True)
    _report(options, energy, scores)


def _trial(options: Any, out: Path, way: str, seed: int, off: tuple[str, ...] = ()) -> Trial:
    values = {
        "shards": options.shards, "out": str(out), "arch": options.arch, "stem": options.stem,
        "image_size": options.image_size,
        "label_fraction": options.label_fraction, "epochs": options.epochs, "seed": seed, "n_boot": 0, "threads": 1,
        "device": "cpu", "precision": "float32", "augment": {"off": list(off)},
    }  # fmt: skip
    if way == "model size":
        values["load_size"] = options.image_size
    config = identity.resolve(from_plain(values, "bench"))
    run = Run.create(
        out, job="finetune", config=run_settings(config), signature=identity.trial_signature(config),
        shards=identity.trial_shards(config),
    )  # fmt: skip
    return Trial(config, run)


def _trained(trial: Trial) -> float:
    found: list[Validation] = list(trial.train())
    trial.finish("end" if found else "nothing", 0.0)
    return float(trial.run.read_done()["test_auroc"])


def _sharpness(trial: Trial, way: str) -> dict[str, float]:
    rows = np.arange(min(256, len(trial.data.train)))
    found = {f"training views, {way}": _energy(trial.training_views()(0, rows))}
    if way == WAYS[0]:
        val = trial.data.val
        assert val is not None
        shown = trial.network.pixels(val).take(val.positions[:256]).float() / 255
        facts = trial.model.facts
        found["val"] = _energy((shown - facts["mean"]) / facts["std"])
        found["the same crops of the stored images by torchvision"] = _energy(_cut_from_stored(trial, rows))
    return found


def _energy(images: torch.Tensor) -> float:
    return float(torch.nn.functional.conv2d(images.contiguous(), LAPLACIAN).square().mean())


def _cut_from_stored(trial: Trial, rows: np.ndarray) -> torch.Tensor:
    """Crop, turn and flip as drawn, from the largest decoding; antialiased by torchvision, without other changes."""
    from torchvision.transforms.v2 import functional as tv

    config, facts, data = trial.config, trial.model.facts, trial.data
    size, stored = int(facts["image_size"]), data.card.image_size
    theta = Augment(config.augment, stored, size).draw(config.seed, 0, len(rows)).theta
    images = data.train.shards.images(data.train.positions[rows], stored).float() / 255
    out = []
    for image, place in zip(images, theta, strict=True):
        wide, high = np.hypot(place[0, 0], place[1, 0]) * stored, np.hypot(place[0, 1], place[1, 1]) * stored
        left = (place[0, 2] + 1) / 2 * stored - wide / 2
        top = (place[1, 2] + 1) / 2 * stored - high / 2
        box = (int(round(top)), int(round(left)), max(1, int(round(high))), max(1, int(round(wide))))
        out.append(tv.resized_crop(image, *box, [size, size], antialias=True))
    return (torch.stack(out) - facts["mean"]) / facts["std"]


def _report(options: Any, energy: dict[str, float], scores: dict[str, list[float]]) -> None:
    print(f"\n{Path(options.shards).name}: {options.arch} (stem {options.stem}) at {options.image_size} pixels,")
    print(f"{options.label_fraction:.0%} of the labels, {options.epochs} epochs, {options.seeds} seeds;", end=" ")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    print("| pictures | mean squared Laplacian |\n|---|---:|")
    for name, value in energy.items():
        print(f"| {name} | {value:.4f} |")
    print("\n| decoded | test AUROC, mean | sd over seeds |\n|---|---:|---:|")
    for way in WAYS:
        print(f"| {way} | {np.mean(scores[way]):.4f} | {np.std(scores[way], ddof=1):.4f} |")
    gain = np.array(scores[WAYS[1]]) - np.array(scores[WAYS[0]])
    half = stats.t.ppf(0.975, len(gain) - 1) * gain.std(ddof=1) / len(gain) ** 0.5
    print(f"\nWith room less without, paired by seed: {gain.mean():+.4f} (95 % interval {gain.mean() - half:+.4f} to "
          f"{gain.mean() + half:+.4f}; better in {int((gain > 0).sum())} of {len(gain)} seeds)")  # fmt: skip


if __name__ == "__main__":
    main()
