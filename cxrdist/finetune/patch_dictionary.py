"""The dictionary of init kmeans-patches, learnt at first use from the train split of a trial's shard set.

It is a function of the shard set's content, the image size and the section `kmeans`: trials that agree in them share
it, through the process or the cache folder.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from cxrdist.core import kmeans_patches, shard_sets
from cxrdist.core.device import usable_cores
from cxrdist.core.kmeans_patches import PatchFeatures
from cxrdist.core.shared_files import digest, once
from cxrdist.finetune import labelled_data
from cxrdist.finetune.config import FinetuneConfig
from cxrdist.finetune.decoded_images import Pixels

KEY = "dictionary"
"""Name, among a model's facts, of the text that says what its dictionary was learnt from and how."""
_CHUNK = 256


def learnt(config: FinetuneConfig) -> tuple[PatchFeatures, dict[str, str]]:
    """The dictionary of a resolved configuration, and under `KEY` what it is a function of.

    Raises:
        InputError: images or patches that are too small or too few for the settings.
    """
    assert config.image_size is not None
    content = shard_sets.card(config.shards).sha256
    settings = {"shards": content, "image_size": config.image_size, **dataclasses.asdict(config.kmeans)}
    text = json.dumps(settings, sort_keys=True)
    if text not in _kept:
        _kept.clear()  # one at a time: cells that share one stay together
        _kept[text] = _shared(config, text)
    return _kept[text], {KEY: text, "image_size": str(config.image_size)}


_kept: dict[str, PatchFeatures] = {}


def _shared(config: FinetuneConfig, text: str) -> PatchFeatures:
    """The dictionary from the cache folder, learnt by the first process that asks; without a folder, learnt here."""
    if config.cache is None:
        return _learn(config, None)
    cache = os.path.expandvars(config.cache)

    def fill(path: Path) -> None:
        safetensors.torch.save_file(_learn(config, cache).state_dict(), path)

    file = once(Path(cache) / f"dictionary-{digest(text)}.safetensors", fill)
    tensors = safetensors.torch.load_file(file)
    features = kmeans_patches.of_state(tensors, file, prefix="")
    features.load_state_dict(tensors)
    return features.eval()


def _learn(config: FinetuneConfig, cache: str | None) -> PatchFeatures:
    train = labelled_data.opened(config.shards, "train", config.stage)
    positions = np.arange(len(train))
    if len(train) > config.kmeans.images:
        rng = np.random.default_rng([config.kmeans.seed, 0x696D])
        positions = np.sort(rng.choice(len(train), config.kmeans.images, replace=False))
    workers = config.workers or config.threads or usable_cores()
    pixels = Pixels(train, int(config.image_size or 0), positions, cache, workers)

    def batches() -> Iterator[torch.Tensor]:
        for start in range(0, len(positions), _CHUNK):
            yield pixels.take(positions[start : start + _CHUNK])

    return kmeans_patches.learn(batches(), len(positions), config.kmeans)
