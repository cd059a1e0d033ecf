"""The images on which encoders are compared: one shard set or several, and what is known of each image.

Shapes: n images, L labels, S side in pixels, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cxrdist.core.ahead import ahead
from cxrdist.core.augment import Augment
from cxrdist.core.augment_config import AugmentConfig
from cxrdist.core.device import autocast
from cxrdist.errors import InputError
from cxrdist.inference.explore import sample
from cxrdist.inference.network import BATCH, Encoder, batches
from results.dataset_names import with_hash
from shards import ShardSet

TRAITS = ("view", "sex", "dataset")
"""What a network should not need to know of an image, besides its patient."""


@dataclass(frozen=True, kw_only=True)
class Images:
    """Images of one split, the first shard set's before the second's."""

    parts: tuple[tuple[ShardSet, np.ndarray], ...]
    """Each set and the positions taken of it."""
    keys: np.ndarray
    """str (n,)."""
    patients: np.ndarray
    """str (n,); patients of two sets are different ones."""
    truth: np.ndarray
    """int8 (n, L) as in the index, of the labels that all sets have."""
    traits: dict[str, np.ndarray]
    """view, sex and dataset: object (n,), None where not known."""

    def __len__(self) -> int:
        return len(self.keys)


def drawn(sets: Sequence[ShardSet], labels: Sequence[str], limit: int, seed: int) -> Images:
    """At most `limit` images in all, as many of each set, drawn without replacement; the same for the same seed.

    Raises:
        InputError: a split without images.
    """
    names = dataset_names(sets)
    parts, keys, patients, truth = [], [], [], []
    traits: dict[str, list[np.ndarray]] = {name: [] for name in TRAITS}
    for shards, name in zip(sets, names, strict=True):
        if not len(shards):
            raise InputError(f"{shards.path}: no samples in split {shards.split}")
        positions = sample(shards, max(1, limit // len(sets)), seed)
        rows, index = shards.rows_at(positions), shards.index
        parts.append((shards, positions))
        keys.append(index.keys(rows))
        patients.append(np.array([f"{name}/{patient}" for patient in index.patient_id(rows).tolist()], dtype=object))
        truth.append(np.stack([index.label(label)[rows] for label in labels], axis=1).reshape(len(rows), len(labels)))
        traits["view"].append(_known(index.view(rows)))
        traits["sex"].append(_known(index.sex(rows)))
        traits["dataset"].append(np.full(len(rows), name, dtype=object))
    return Images(
        parts=tuple(parts),
        keys=np.concatenate(keys),
        patients=np.concatenate(patients),
        truth=np.concatenate(truth),
        traits={name: np.concatenate(values) for name, values in traits.items()},
    )


def dataset_names(sets: Sequence[ShardSet]) -> list[str]:
    """What tells the sets apart: their names, with the beginning of their hash where two have one name.

    Raises:
        InputError: one set is named twice.
    """
    hashes = [shards.card.sha256 for shards in sets]
    if twice := next((shards for shards in sets if hashes.count(shards.card.sha256) > 1), None):
        raise InputError(f"{twice.path} is named twice (by content); name each shard set once")
    names = [shards.card.name for shards in sets]
    return [
        name if names.count(name) == 1 else with_hash(name, content)
        for name, content in zip(names, hashes, strict=True)
    ]


def _known(values: np.ndarray) -> np.ndarray:
    return np.array([value or None for value in values.tolist()], dtype=object)


def features_of(encoder: Encoder, images: Images, step: Callable[[int], object]) -> np.ndarray:
    """Features float32 (n, D); `step` is told how many images each batch had."""
    found = []
    for shards, positions in images.parts:
        for _, part in batches(shards, positions, encoder.image_size):
            found.append(encoder.features(part))
            step(len(part))
    return np.concatenate(found)


def views_of(encoder: Encoder, images: Images, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (n, D) of two augmented views of each image, by the augmentation that pretraining uses unless told
    otherwise. All encoders see the same views, each at its own size and scale of pixels.
    """  # noqa: D205
    first, second = [], []
    row = 0
    for shards, positions in images.parts:
        card = shards.card
        augment = Augment(
            AugmentConfig(), card.image_size, encoder.image_size, encoder.device,
            mean=encoder.mean, std=encoder.std, grey=card.mean, seed=seed,
        )  # fmt: skip
        for part in _stored(shards, positions):
            rows = np.arange(row, row + len(part))
            row += len(part)
            for held, view in ((first, 0), (second, 1)):
                held.append(_run(encoder, augment.apply(part, augment.draw(seed, 0, rows, view))))
    return torch.cat(first), torch.cat(second)


def _stored(shards: ShardSet, positions: np.ndarray) -> Iterator[torch.Tensor]:
    parts = [positions[start : start + BATCH] for start in range(0, len(positions), BATCH)]
    yield from ahead(lambda part: shards.images(part, shards.card.image_size), parts)


@torch.inference_mode()
def _run(encoder: Encoder, pixels: torch.Tensor) -> torch.Tensor:
    """Features of normalised images, on the CPU."""
    with autocast(encoder.device, encoder.precision):
        return encoder.module(pixels.contiguous(memory_format=torch.channels_last)).float().cpu()
