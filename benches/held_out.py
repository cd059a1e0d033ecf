"""Which k-means dictionary and probe hold on images unlike those that they learnt from: held-out train images by look.

Run: python -m benches.held_out --src pneumoniamnist.npz [--patch 6,8] [--grid 2,4]. Train images alone are read. Per
dictionary (learnt from all of them, without labels) and probe two test AUROCs on train images that the probe did not
see: 1,200 drawn at random, and those of one of six clusters by look (k-means on the images at 14 x 14), the probe being
fitted on images of the other five. Means over draws, and over clusters with 30 images of each class.
"""

from __future__ import annotations

import argparse
import itertools
from collections import defaultdict
from typing import Any

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from cxrdist.core import kmeans_patches
from cxrdist.core.kmeans_config import KMeansConfig
from results.stats.metrics import auroc

LABELLED = {47: 5, 470: 5, 3000: 1}
"""Labelled images -> draws."""
CLUSTERS = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--src", required=True)
    parser.add_argument("--patch", default="6,8")
    parser.add_argument("--grid", default="2,4")
    parser.add_argument("--centres", type=int, default=800)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with np.load(options.src) as arrays:
        images, truth = arrays["train_images"], arrays["train_labels"][:, 0].astype(bool)
    looks = clusters(images)
    rng = np.random.default_rng(0)
    print("| patch | grid | probe |" + "".join(f" {n}, random | {n}, other look |" for n in LABELLED))
    print("|---|---|---|" + "---:|---:|" * len(LABELLED))
    for patch, grid in itertools.product(numbers(options.patch), numbers(options.grid)):
        features = scaled(images, KMeansConfig(centres=options.centres, patch=patch, grid=grid))
        for name, values in scores(features, truth, looks, rng).items():
            print(f"| {patch} | {grid} | {name} | " + " | ".join(f"{value:.3f}" for value in values) + " |", flush=True)


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def clusters(images: np.ndarray) -> np.ndarray:
    """Which of the looks each image (N, 28, 28) has, (N,)."""
    small = images.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)).reshape(len(images), -1)
    starts: Any = 4  # scikit-learn's types allow "auto" alone
    return KMeans(CLUSTERS, n_init=starts, random_state=0).fit_predict(small)


def scaled(images: np.ndarray, config: KMeansConfig) -> np.ndarray:
    """Features of a dictionary learnt from all images, each of mean 0 and deviation 1, float32 (N, D)."""
    pixels = torch.from_numpy(images)[:, None]
    network = kmeans_patches.learn(iter(pixels.split(256)), len(pixels), config)
    with torch.inference_mode():
        found = torch.cat([network(part.float() / 255) for part in pixels.split(128)]).numpy()
    return (found - found.mean(axis=0)) / (found.std(axis=0) + 1e-6)


def probes(width: int) -> dict[str, LogisticRegression | SVC]:
    """Probes by name: lines of three penalties and Gaussian kernels of three widths."""
    lines = {f"linear, C {c:g}": LogisticRegression(C=c, max_iter=300) for c in (1e-3, 1e-2, 1e-1)}
    width_of: dict[float, Any] = {g: g / width for g in (0.1, 0.3, 1.0)}  # scikit-learn's types allow names alone
    kernels = {f"rbf, gamma {g:g}": SVC(C=10, gamma=value, class_weight="balanced") for g, value in width_of.items()}
    return lines | kernels


def scores(x: np.ndarray, truth: np.ndarray, looks: np.ndarray, rng: np.random.Generator) -> dict[str, list[float]]:
    """Per probe the mean AUROC on random and on other-looking images, for each number of labelled ones."""
    found: dict[tuple[str, int, str], list[float]] = defaultdict(list)
    for labelled, draws in LABELLED.items():
        for _ in range(draws):
            order = rng.permutation(len(truth))
            splits = [("random", order[1200:][:labelled], order[:1200])]
            for look in range(CLUSTERS):
                test = np.flatnonzero(looks == look)
                if min(truth[test].sum(), (~truth[test]).sum()) >= 30:
                    splits.append(("look", order[looks[order] != look][:labelled], test))
            for kind, train, test in splits:
                for name, probe in probes(x.shape[1]).items():
                    probe.fit(x[train], truth[train])
                    found[name, labelled, kind].append(auroc(truth[test], probe.decision_function(x[test])))
    return {
        name: [float(np.mean(found[name, labelled, kind])) for labelled in LABELLED for kind in ("random", "look")]
        for name in probes(x.shape[1])
    }


if __name__ == "__main__":
    main()
