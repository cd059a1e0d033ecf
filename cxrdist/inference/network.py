"""Reading any trained network of cxrdist as an encoder or a classifier, and running it over many images.

Shapes: B batch, S side in pixels, D features, L labels, n images.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from cxrdist.core import backbones, hub, named_inits
from cxrdist.core.ahead import ahead
from cxrdist.core.device import autocast, exact_products, pick_device, resolve_precision
from cxrdist.core.initialisation import describe
from cxrdist.core.named_inits import NamedInit
from cxrdist.errors import InputError
from cxrdist.finetune import classifier
from cxrdist.finetune.classifier import Classifier
from results.run import Run
from shards import ShardSet
from shards.format import Card

BATCH = 64
"""Images a step. The last batch is filled up, so that an image's numbers do not depend on its neighbours."""


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A backbone in evaluation mode and how it wants its pixels."""

    module: nn.Module
    """Normalised images (B, 1, S, S) -> features (B, D)."""
    image_size: int
    """S."""
    mean: float
    """Subtracted from pixels in [0, 1]."""
    std: float
    """Divided by."""
    source: Path
    """The file that it came from."""
    name: str
    """For titles and metadata, e.g. resnet18."""
    classifier: Classifier | None
    """The whole fine-tuned model, where there is one."""
    precision: str
    """The precision that it is run in, as `resolve_precision` gives it."""
    per_set: bool = False
    """Whether it expects each shard set's pixels normalised by the set's own mean and deviation; `mean` and `std` are
    then those of all sets that it was trained on."""

    @property
    def device(self) -> torch.device:
        """Where its weights lie."""
        return next(self.module.parameters()).device

    def pixels(self, images: torch.Tensor) -> torch.Tensor:
        """Uint8 (B, 1, S, S) -> float32 on the device, normalised."""
        moved = images.to(self.device, non_blocking=True).float() / 255
        return ((moved - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def _filled(self, images: torch.Tensor) -> torch.Tensor:
        """Features (64, D) on the device; too few images are repeated, as other batch sizes round otherwise."""
        if len(images) < BATCH:
            images = images[torch.arange(BATCH) % len(images)]
        with autocast(self.device, self.precision):
            return self.module(self.pixels(images)).float()

    def fitted_to(self, card: Card) -> Encoder:
        """The encoder for the images of a shard set, by its card: one that expects the set's own pixels gets them."""
        return replace(self, mean=card.mean, std=card.std) if self.per_set else self

    @torch.inference_mode()
    def features(self, images: torch.Tensor) -> np.ndarray:
        """Features float32 (B, D) of uint8 images (B, 1, S, S), B at most 64."""
        return self._filled(images)[: len(images)].cpu().numpy()

    @torch.inference_mode()
    def scores(self, images: torch.Tensor) -> np.ndarray:
        """Probabilities float32 (B, L) of uint8 images (B, 1, S, S); only of a fine-tuned model."""
        assert self.classifier is not None
        features = self._filled(images)
        with exact_products():
            logits = self.classifier.head(features).float()
        return torch.sigmoid(logits)[: len(images)].cpu().numpy()


def load(path: str | os.PathLike[str], device: str = "auto", *, classify: bool = False) -> Encoder:
    """Open a fine-tuning run, a pretraining run, one of their .safetensors files, or a published encoder's file.

    Args:
        path: the run or the file; a fine-tuned model is preferred where a run has both.
        device: auto, cpu or cuda.
        classify: insist on a fine-tuned model.

    Raises:
        InputError: there is no such file, or (with `classify`) it is not a fine-tuned model.
    """
    where = pick_device(device)
    named = named_inits.entry(str(path))
    path = path if named is None else named.init
    file = hub.fetched(str(path)) if str(path).startswith(hub.SCHEME) else _file(Path(path), classify)
    whole = None
    if file.name != "encoder.safetensors" and _is_classifier(file):
        whole = classifier.load(file)
        backbone, facts = whole.backbone, whole.facts
        whole.to(where)
    elif classify:
        raise InputError(f"{file} is an encoder without a classifier; fine-tune from it first: cxrdist finetune --init")
    else:
        backbone, facts = _encoder(file, named)
        backbone.to(where)
    if not {"mean", "std"} <= set(facts):
        raise InputError(
            f"{file} does not say what pixels its network expects (no mean and std in its metadata); fine-tune from it"
            " with --init_mean and --init_std, and use that run"
        )
    size, (precision, scaled) = int(facts["image_size"]), _precision(Path(path))
    return Encoder(
        module=backbone.eval(),
        image_size=size,
        mean=float(facts["mean"]),
        std=float(facts["std"]),
        source=file,
        name=str(facts["arch"]),
        classifier=whole,
        per_set=whole is None and facts.get("normalise") == "set",
        precision=resolve_precision(precision, where, size, scaled=scaled),
    )


def _encoder(file: Path, named: NamedInit | None) -> tuple[nn.Module, dict[str, Any]]:
    """An encoder of cxrdist, or a published one of which all is known, with its facts.

    Args:
        file: of the weights.
        named: what the user's list of encoders says of them.

    Raises:
        InputError: its network, or the size of its images, is not known.
    """
    if file.suffix == ".safetensors" and "image_size" in backbones.read_metadata(file):
        return backbones.load_encoder(file)
    start = describe(str(file))
    arch = (named and named.arch) or start.arch
    size = (named and named.image_size) or start.image_size
    if arch is None or size is None:
        what = "network" if arch is None else "size of images"
        raise InputError(
            f"{file} does not say which {what} its weights are for; name it in your list of encoders with arch and "
            "image_size (docs/finetune.md), or fine-tune from it and look at that run"
        )
    own = (
        None
        if named is None or named.init_mean is None or named.init_std is None
        else (named.init_mean, named.init_std)
    )
    backbone, _ = backbones.load_init(str(file), arch, size, own_pixels=own is not None)
    pixel = own or start.pixel or (None if start.published is None else start.published.grey)
    facts: dict[str, Any] = {"arch": arch, "image_size": size}
    return backbone.eval(), facts if pixel is None else facts | {"mean": pixel[0], "std": pixel[1]}


def _file(path: Path, classify: bool) -> Path:
    if not path.exists():
        raise InputError(f"{path} does not exist; give a run folder or a .safetensors file")
    if path.is_file():
        return path
    names = ("model.safetensors",) if classify else ("model.safetensors", "encoder.safetensors")
    for name in names:
        if (path / name).is_file():
            return path / name
    kind = "fine-tuning run" if classify else "finished run"
    raise InputError(f"{path} is no {kind}: it holds no {' and no '.join(names)}")


def _precision(path: Path) -> tuple[str, bool]:
    """As the run was evaluated, so that its scores come out again: the setting, and whether it scaled gradients."""
    run = Run(path)
    config = run.read_config() if run.config.is_file() else {}
    return str(config.get("precision", "auto")), config.get("mode", "linear") != "linear"


def _is_classifier(file: Path) -> bool:
    return file.suffix == ".safetensors" and str(backbones.read_metadata(file).get("format", "")).startswith(
        "cxrdist classifier"
    )


def learnt_labels(path: str | os.PathLike[str], network: Classifier) -> list[str]:
    """Labels the run could learn; those without positives or negatives in its label fraction have no meaning."""
    run = Run(path)
    unlearnt = run.read_done().get("unlearnt", []) if run.is_done else []
    return [name for name in network.facts["labels"] if name not in unlearnt]


def own_shards(path: str | os.PathLike[str], given: str | None) -> str:
    """The shard set that was given, or else the one the run was trained on.

    Raises:
        InputError: none was given and the run names none.
    """
    if given is not None:
        return given
    run = Run(path)
    found = run.read_config().get("shards") if run.config.is_file() else None
    if not found:
        raise InputError(f"{path} does not say what it was trained on; name a shard set: --shards DIR")
    if isinstance(found, list):
        raise InputError(f"{path} was trained on several shard sets; name one: --shards {found[0]}")
    return str(found)


def batches(shards: ShardSet, positions: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Yield (positions, uint8 images (B, 1, S, S)) in order, decoding a few batches ahead in threads."""
    parts = [positions[start : start + BATCH] for start in range(0, len(positions), BATCH)]
    yield from ahead(lambda part: (part, shards.images(part, size)), parts)
