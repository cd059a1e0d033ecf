"""Does a threshold chosen on val hold on test? Linear probes on frozen features, with tone and with folds by patient.

Run: python -m benches.threshold_transfer --shards SHARDS --encoder RUN [--label pneumonia] [--cache DIR].
Prints Markdown for benches/reports/threshold_transfer.md.

Four probes, fixed before any was tested: fitted on train, with val as the shard set has it, or on train and val
together, with five folds by patient in place of val; on images as they are, or on these and one copy of each in another
tone. Penalties go by AUROC on val, thresholds by balanced accuracy there.

Shapes: n images, D features.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from cxrdist.core.augment import Augment
from cxrdist.core.augment_config import AUGMENT_PARTS, AugmentConfig
from cxrdist.core.device import autocast
from cxrdist.finetune import linear_probe
from cxrdist.finetune.config import ClassifierHeadConfig
from cxrdist.inference.network import Encoder, batches, load
from results.stats import calibration, uncertainty
from results.stats.influence import influence
from results.stats.metrics import auroc, expected_calibration_error, pick_threshold
from shards import ShardSet

FOLDS = 5
TONES = ("brightness", "contrast", "gamma")
SHIFTS = AugmentConfig(
    off=[part for part in AUGMENT_PARTS if part not in TONES], brightness=0.3, contrast=0.5, gamma=2.0, tone_p=1.0
)
"""Only the tone, and that strongly."""
COLUMNS = (
    "probe", "AUROC on val", "AUROC on test", "threshold", "accuracy there", "sensitivity", "specificity",
    "accuracy at 0.5",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", required=True)
    parser.add_argument("--encoder", required=True, help="a run, or an encoder's file")
    parser.add_argument("--label", default="pneumonia")
    parser.add_argument("--cache", type=Path, help="folder in which features are kept")
    options = parser.parse_args()
    shards = ShardSet(options.shards)
    truth = shards.index.label(options.label) == 1
    patients = np.unique(shards.index.patient_id(np.arange(len(shards))), return_inverse=True)[1]
    split = np.full(len(shards), "train", dtype=object)
    for name in ("val", "test"):
        span = shards.index.split_range(name)
        split[span.start : span.stop] = name
    plain = _kept(options.cache, "plain", lambda: _features(load(options.encoder), shards, tone=False))
    toned = _kept(options.cache, "toned", lambda: _features(load(options.encoder), shards, tone=True))
    print(f"{len(shards)} images, {len(np.unique(patients))} patients\n")
    print(f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}", sep="\n")
    calibrated = []
    for name, by_patient, copies in (
        ("val image by image", False, [plain]),
        ("the same, tone", False, [plain, toned]),
        ("folds by patient", True, [plain]),
        ("the same, tone", True, [plain, toned]),
    ):
        seen, score = _probe(copies, truth, patients, split, by_patient)
        test = split == "test"
        _line(name, seen, truth[test], score, patients[test])
        calibrated.append((name, *_temperature(seen, truth[test], score)))
    print("\n| probe | temperature | ECE on test as trained | with the temperature |\n|---|---:|---:|---:|")
    for name, t, before, after in calibrated:
        print(f"| {name} | {t:.2f} | {before:.3f} | {after:.3f} |")


def _kept(folder: Path | None, name: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """An array of features, from the folder where it lies there."""
    if folder is None:
        return compute()
    path = folder / f"{name}.npy"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        np.save(path, compute())
    return np.load(path)


@torch.inference_mode()
def _features(encoder: Encoder, shards: ShardSet, *, tone: bool) -> np.ndarray:
    """Features float32 (n, D) of all images, as they are or each in one other tone."""
    size, grey = encoder.image_size, shards.card.mean
    augment = Augment(SHIFTS, size, size, encoder.device, mean=encoder.mean, std=encoder.std, grey=grey)
    parts = []
    for positions, images in batches(shards, np.arange(len(shards)), size):
        if not tone:
            parts.append(encoder.features(images))
            continue
        views = augment.apply(images, augment.draw(0, 0, positions))
        with autocast(encoder.device, encoder.precision):
            parts.append(encoder.module(views.contiguous(memory_format=torch.channels_last)).float().cpu().numpy())
    return np.concatenate(parts)


def _probe(
    copies: list[np.ndarray], truth: np.ndarray, patients: np.ndarray, split: np.ndarray, by_patient: bool
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Truth and scores of the images that the threshold is chosen on, and scores of test.

    With folds these are all of train and val, each scored by a probe that has not seen its patient; test is scored by a
    probe on all of them, with the penalty that was best there.
    """
    penalties = ClassifierHeadConfig().probe_l2
    test = split == "test"
    if not by_patient:
        train, val = split == "train", split == "val"
        paths = [_scores(copies, truth, train, [penalty], val | test) for penalty in penalties]
        best = max(paths, key=lambda score: auroc(truth[val], score[val]))
        return (truth[val], best[val]), best[test]
    rest = ~test
    names = np.unique(patients[rest])
    fold_of = dict(
        zip(np.random.default_rng(0).permutation(names).tolist(), np.arange(len(names)) % FOLDS, strict=True)
    )
    fold = np.array([fold_of.get(patient, -1) for patient in patients.tolist()])
    held = []
    for penalty in penalties:
        score = np.zeros(len(truth))
        for number in range(FOLDS):
            out = rest & (fold == number)
            score[out] = _scores(copies, truth, rest & ~out, [penalty], out)[out]
        held.append(score)
    best = max(range(len(penalties)), key=lambda at: auroc(truth[rest], held[at][rest]))
    return (truth[rest], held[best][rest]), _scores(copies, truth, rest, [penalties[best]], test)[test]


def _scores(
    copies: list[np.ndarray], truth: np.ndarray, fitted: np.ndarray, penalties: list[float], wanted: np.ndarray
) -> np.ndarray:
    """Probabilities (n,) of the wanted images as they are, by a probe on all copies of the fitted ones; 0 elsewhere."""
    x = np.concatenate([features[fitted] for features in copies])
    y = np.tile(truth[fitted], len(copies))[:, None]
    positives = y.mean()
    balanced = np.array([0.5 / positives]), np.array([0.5 / (1 - positives)])
    probe = linear_probe.fit(x, y, np.ones_like(y), balanced, penalties, None)
    out = np.zeros(len(truth))
    logits = copies[0][wanted].astype(np.float64) @ probe.weight[0].astype(np.float64) + probe.bias[0]
    out[wanted] = 1 / (1 + np.exp(-logits))
    return out


def _line(
    name: str, seen: tuple[np.ndarray, np.ndarray], truth: np.ndarray, score: np.ndarray, patients: np.ndarray
) -> None:
    threshold = pick_threshold(*seen)
    codes = np.unique(patients, return_inverse=True)[1]

    def shown(metric: str, at: float) -> str:
        found = influence(metric, truth, score, codes, at)
        assert found is not None
        low, high = uncertainty.interval([found])
        return f"{found.value:.3f} [{low:.3f}, {high:.3f}]"

    cells = [name, f"{auroc(*seen):.3f}", shown("auroc", threshold), f"{threshold:.2f}"]
    cells += [shown(metric, threshold) for metric in ("accuracy", "recall", "specificity")]
    print(f"| {' | '.join([*cells, shown('accuracy', 0.5)])} |")


def _temperature(
    seen: tuple[np.ndarray, np.ndarray], truth: np.ndarray, score: np.ndarray
) -> tuple[float, float, float]:
    """The temperature fitted on val, and the calibration error on test without and with it."""
    t = calibration.temperature(*seen)
    after = calibration.recalibrated(score, t)
    return t, expected_calibration_error(truth, score), expected_calibration_error(truth, after)


if __name__ == "__main__":
    main()
