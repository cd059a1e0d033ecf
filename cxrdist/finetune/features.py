"""Running a frozen network over samples, once: scores for evaluation, and features that trials share.

Batches always have the same shape (the last one is filled up and the filling dropped), so that a sample's numbers do
not depend on which other samples are computed with it: a trial that computes its own few rows gets the bits that the
shared file of all rows holds.

Shapes: n samples, B batch, S side in pixels, D features, L labels.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import torch

from cxrdist.core.device import autocast, exact_products
from cxrdist.core.initialisation import describe
from cxrdist.core.shared_files import digest, once
from cxrdist.finetune import patch_dictionary
from cxrdist.finetune.classifier import Classifier
from cxrdist.finetune.config import FinetuneConfig
from cxrdist.finetune.decoded_images import Pixels
from cxrdist.finetune.labelled_data import Split
from shards.progress import Progress

BATCH = 64


def normalise(images: torch.Tensor, classifier: Classifier, device: torch.device) -> torch.Tensor:
    """Uint8 (B, 1, S, S) -> float32 on the device, as the backbone expects pixels."""
    pixels = images.to(device, non_blocking=True).float() / 255
    pixels = (pixels - classifier.facts["mean"]) / classifier.facts["std"]
    return pixels.contiguous(memory_format=torch.channels_last)


class Network:
    """A classifier read in evaluation mode: features by batches, logits by the head in float32.

    Features of a frozen backbone (mode linear) are kept, and shared through the cache folder; those of a backbone that
    is being trained are computed each time.
    """

    def __init__(self, config: FinetuneConfig, model: Classifier, precision: str):
        self.config, self.model, self.precision = config, model, precision
        self.device = next(model.parameters()).device
        self._kept: dict[tuple[str, ...], np.ndarray] = {}
        self._pixels: dict[tuple[str, ...], Pixels] = {}

    @property
    def cache(self) -> str | None:
        """The folder that trials of this node share."""
        return None if self.config.cache is None else os.path.expandvars(self.config.cache)

    def pixels(self, split: Split, size: int | None = None) -> Pixels:
        """The decoded images of a split, `size` pixels a side; None: as the model takes them."""
        size = int(self.model.facts["image_size"]) if size is None else size
        key = (*_key(split), str(size))
        if key not in self._pixels:
            workers = self.config.workers or self.config.threads or 0
            self._pixels[key] = Pixels(split.shards, size, split.positions, self.cache, workers)
        return self._pixels[key]

    def logits(self, split: Split) -> np.ndarray:
        """Logits of a split's chosen samples, float32 (n, L)."""
        self.model.eval()
        x = self.features(split)
        with torch.inference_mode(), exact_products():
            parts = [self.model.head(torch.from_numpy(part).to(self.device)).cpu() for part in _cut(x)]
        return torch.cat(parts).numpy()

    def features(self, split: Split) -> np.ndarray:
        """Features of a split's chosen samples, float32 (n, D).

        In mode linear with a cache folder the whole split is computed by the first trial that asks and read by the
        others; the file is named by the encoder's and the shard set's hashes, so another encoder or another conversion
        is another file.
        """
        if self.config.mode != "linear":
            return self._compute(split, split.positions)
        key = _key(split)
        if key not in self._kept:
            self._kept[key] = self._frozen(split)
        return self._kept[key]

    def _frozen(self, split: Split) -> np.ndarray:
        self.model.eval()
        if self.cache is None:
            return self._compute(split, split.positions)

        def fill(path: Path) -> None:
            everything = self._compute(split, np.arange(len(split.shards)))
            with open(path, "wb") as file:
                np.save(file, everything)

        facts = self.model.facts
        name = digest(
            "features 1",
            describe(self.config.init).sha256 or self.config.init,
            *(["own pixels"] if self.config.init_mean is not None else []),
            *(str(facts[part]) for part in ("arch", "image_size", "stem", "mean", "std")),
            split.shards.card.sha256,
            split.name,
            self.precision,
            self.device.type,
            *([facts[patch_dictionary.KEY]] if patch_dictionary.KEY in facts else []),
        )
        shared = np.load(once(Path(self.cache) / f"features-{name}.npy", fill), mmap_mode="r")
        return np.ascontiguousarray(shared[split.positions])

    @torch.inference_mode()
    def _compute(self, split: Split, positions: np.ndarray) -> np.ndarray:
        pixels, parts = self.pixels(split), []
        chunks = [positions[start : start + BATCH] for start in range(0, len(positions), BATCH)]
        filled = [np.resize(chunk, BATCH) for chunk in chunks]
        with Progress(len(chunks), f"scored {split.name}, batches:", unit="batch", leave=False) as bar:
            for chunk, decoded in zip(chunks, pixels.batches(filled), strict=True):
                images = normalise(decoded, self.model, self.device)
                with autocast(self.device, self.precision):
                    out = self.model.backbone(images)
                parts.append(out[: len(chunk)].float().cpu().numpy())
                bar.add(1)
        return np.concatenate(parts)


def _key(split: Split) -> tuple[str, ...]:
    return (split.shards.card.sha256, split.name, hashlib.sha256(split.positions.tobytes()).hexdigest())


def _cut(x: np.ndarray) -> list[np.ndarray]:
    return [x[start : start + 4096] for start in range(0, len(x), 4096)]
