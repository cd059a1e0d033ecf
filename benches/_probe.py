"""Linear probe of encoders: test AUROC of a logistic regression on frozen features, with all and with few labels.

Run: python -m benches._probe SHARDS ENCODER... ; an ENCODER is a run's folder, or random:ARCH:SIZE:SEED.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numpy as np
import torch

from cxrdist.core.augment import Augment
from cxrdist.core.augment_config import AugmentConfig
from cxrdist.core.backbones import build_backbone, load_encoder
from results.stats.metrics import auroc
from shards import ShardSet

FRACTIONS = (1.0, 0.1, 0.01)
DRAWS = 5


def features(shards: ShardSet, backbone: Any, size: int) -> np.ndarray:
    """Features (N, D) of the plain images."""
    card = shards.card
    side = min(card.image_size, 8 * -(-5 * size // 32))
    augment = Augment(AugmentConfig(preset="none"), side, size, mean=card.mean, std=card.std)
    parts = []
    with torch.inference_mode():
        for at in range(0, len(shards), 256):
            images = shards.images(np.arange(at, min(at + 256, len(shards))), side)
            parts.append(backbone(augment.plain(images)).float().numpy())
    return np.concatenate(parts)


def probe(shards: str, encoder: str) -> dict[float, float]:
    """Test AUROC by label fraction, the mean over draws of the labelled images; the penalty is chosen on val."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if encoder.startswith("random:"):
        _, arch, size, seed = encoder.split(":")
        torch.manual_seed(int(seed))
        backbone, side = build_backbone(arch, int(size)).eval(), int(size)
    else:
        backbone, facts = load_encoder(encoder)
        side = int(facts["image_size"])
    sets = {split: ShardSet(shards, split) for split in ("train", "val", "test")}
    x = {split: features(part, backbone, side) for split, part in sets.items()}
    y = {split: part.labels_matrix()[:, 0] == 1 for split, part in sets.items()}
    found: dict[float, float] = {}
    for fraction in FRACTIONS:
        scores = []
        for draw in range(1 if fraction == 1 else DRAWS):
            dice = np.random.default_rng(draw)
            rows = np.concatenate(
                [dice.permutation(np.flatnonzero(y["train"] == c))[: max(1, round(fraction * (y["train"] == c).sum()))]
                 for c in (False, True)]
            )  # fmt: skip
            best = (-1.0, 0.0)
            for c in (1e-4, 1e-3, 1e-2, 1e-1, 1.0):
                model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000))
                model.fit(x["train"][rows], y["train"][rows])
                on_val = auroc(y["val"], model.decision_function(x["val"]))
                best = max(best, (on_val, auroc(y["test"], model.decision_function(x["test"]))))
            scores.append(best[1])
        found[fraction] = float(np.mean(scores))
    return found


def main() -> None:
    """Print one row per encoder."""
    warnings.simplefilter("ignore")
    shards, *encoders = sys.argv[1:]
    print("| encoder | " + " | ".join(f"{100 * f:g} % of labels" for f in FRACTIONS) + " |")
    print("|---|" + "---|" * len(FRACTIONS))
    for encoder in encoders:
        found = probe(shards, encoder)
        print(f"| {encoder} | " + " | ".join(f"{found[f]:.4f}" for f in FRACTIONS) + " |", flush=True)


if __name__ == "__main__":
    main()
