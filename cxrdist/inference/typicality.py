"""How far an image is from the training set: a warning against images that are no chest X-rays like those.

Each image is described in several spaces: the mean activation of every channel at the last layer of each resolution of
the network, its features, its grey values at 16 x 16, and their mean, contrast and roughness. In each space the
distance is Mahalanobis's along the main directions of the training images, and the rest of the vector against their
mean rest (Lee et al., NeurIPS 2018, fitted to one class; the rest as in Rippel et al., ICPR 2021). Each distance is
divided by a limit that comes from the validation images, and the largest quotient is the atypicality: above 1, an image
is flagged.

The limits: the logarithms of the validation images' distances have a mean and a deviation in each space, and all limits
lie equally many deviations above their means: as many as leave `RARE` of the images above one of them, counted on
validation, but no fewer than Student's t says for so few images and so many spaces, since the largest of few is
exceeded often.

Shapes: n images, K spaces, D numbers in a space, R main directions.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F

from cxrdist.core import weights
from cxrdist.core.device import autocast
from cxrdist.errors import InputError
from cxrdist.inference.network import Encoder, batches
from shards import ShardSet
from shards.progress import Progress

FORMAT = "cxrdist typicality 1"
MOST_TRAIN, MOST_VAL = 2000, 1000
"""Images that it is fitted to, and calibrated on; drawn with seed 0 where there are more."""
DIRECTIONS = 48
"""R at most, and no more than a quarter of the training images."""
RARE = 0.005
"""Share of images like the training's that may be flagged."""
LIMIT = 1.0
"""Atypicality above which an image is flagged."""
_PIXELS = 16


@dataclass(frozen=True)
class Space:
    """The training images in one space."""

    mean: np.ndarray
    """float32 (D,)."""
    axes: np.ndarray
    """float32 (R, D), each divided by the standard deviation along it."""
    rest: float
    """Mean squared length of what the axes leave over."""
    limit: float = 1.0
    """Distance above which an image is unlike the training's."""

    def distance(self, vectors: np.ndarray) -> np.ndarray:
        """Of vectors (n, D), float64 (n,), before scaling."""
        centred = vectors.astype(np.float64) - self.mean
        along = centred @ self.axes.astype(np.float64).T
        lengths = np.linalg.norm(self.axes.astype(np.float64), axis=1)
        within = ((along / lengths) ** 2).sum(axis=1)
        rest = np.maximum((centred**2).sum(axis=1) - within, 0)
        return np.sqrt((along**2).sum(axis=1) + len(self.axes) * rest / self.rest)


def fit_space(train: np.ndarray) -> Space:
    """A space from training vectors (n, D), without a limit yet."""
    mean = train.mean(axis=0, dtype=np.float64)
    _, strength, axes = np.linalg.svd(train.astype(np.float64) - mean, full_matrices=False)
    keep = min(DIRECTIONS, len(train) // 4, int((strength > 1e-6 * max(strength[0], 1e-12)).sum()))
    spread = strength[:keep] / np.sqrt(max(1, len(train) - 1))
    rest = float((strength[keep:] ** 2).sum() / len(train))
    floor = 1e-4 * float((strength**2).sum() / len(train)) + 1e-12
    scaled = axes[:keep] / spread[:, None]
    return Space(mean.astype(np.float32), scaled.astype(np.float32), max(rest, floor))


def limits(distances: np.ndarray) -> np.ndarray:
    """Limits float64 (K,) from the distances (n, K) of validation images; see the head of the file."""
    logs = np.log(np.maximum(distances, 1e-9))
    mean, spread = logs.mean(axis=0), np.maximum(logs.std(axis=0, ddof=1), 1e-3)
    counted = float(np.quantile(((logs - mean) / spread).max(axis=1), 1 - RARE))
    n, spaces = distances.shape
    least = float(stats.t.ppf(1 - RARE / spaces, n - 1) * np.sqrt(1 + 1 / n))
    return np.exp(mean + max(counted, least) * spread)


@dataclass(frozen=True)
class Typicality:
    """What is typical of a training set, as one network and its grey values see it."""

    spaces: dict[str, Space]
    n_train: int
    n_val: int

    def score(self, encoder: Encoder, images: torch.Tensor) -> np.ndarray:
        """Atypicality float64 (n,) of uint8 images (n, 1, S, S): below 1 for images like the training set."""
        found = describe(encoder, images)
        return self.of(found)

    def of(self, found: dict[str, np.ndarray]) -> np.ndarray:
        """Atypicality of described images."""
        return np.max([space.distance(found[name]) / space.limit for name, space in self.spaces.items()], axis=0)


def _layers(network: nn.Module, size: int, device: torch.device) -> list[str]:
    """The last module of each resolution; of networks of tokens none, whose pooled features then stand alone."""
    last: dict[tuple[int, ...], str] = {}
    hooks = []

    def note(name: str):
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, torch.Tensor) and output.ndim == 4:
                last[tuple(output.shape[2:])] = name

        return hook

    for name, module in network.named_modules():
        if name and not any(module.children()):
            hooks.append(module.register_forward_hook(note(name)))
    try:
        with torch.no_grad():
            network(torch.zeros(1, 1, size, size, device=device))
    finally:
        for hook in hooks:
            hook.remove()
    return list(dict.fromkeys(last.values()))


def describe(encoder: Encoder, images: torch.Tensor, layers: list[str] | None = None) -> dict[str, np.ndarray]:
    """Uint8 images (n, 1, S, S) in all spaces: name -> float32 (n, D)."""
    names = _layers(encoder.module, encoder.image_size, encoder.device) if layers is None else layers
    kept: dict[str, torch.Tensor] = {}

    def keep(name: str):
        def hook(_module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
            kept[name] = output.float().mean(dim=(2, 3))

        return hook

    hooks = [encoder.module.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    try:
        with torch.inference_mode(), autocast(encoder.device, encoder.precision):
            pooled = encoder.module(encoder.pixels(images)).float()
    finally:
        for hook in hooks:
            hook.remove()
    small = F.interpolate(images.float() / 255, size=(_PIXELS, _PIXELS), mode="area").flatten(1)
    spaces = {f"layer:{name}": value for name, value in kept.items()}
    spaces |= {"features": pooled, "pixels": small, "grey": _grey(images.float())}
    return {name: value.cpu().numpy() for name, value in spaces.items()}


def _grey(images: torch.Tensor) -> torch.Tensor:
    """Mean, contrast and roughness of grey values (n, 1, S, S), float32 (n, 3): an even image has no contrast."""
    step = images.diff(dim=3).abs().mean(dim=(1, 2, 3)) + images.diff(dim=2).abs().mean(dim=(1, 2, 3))
    spread = images.flatten(1).std(dim=1)
    return torch.stack([images.mean(dim=(1, 2, 3)) / 255, spread.log1p(), step.log1p()], dim=1)


def fit(encoder: Encoder, train: ShardSet, val: ShardSet) -> Typicality:
    """What is typical of the training images of a run, with a limit from its validation images; a bar on a terminal.

    Raises:
        InputError: too few images to say.
    """
    described = []
    for split, most in ((train, MOST_TRAIN), (val, MOST_VAL)):
        if len(split) < 20:
            raise InputError(f"{split.path}: {len(split)} images in {split.split} are too few to say what is typical")
        with Progress(min(len(split), most), f"described {split.split}", unit="image") as bar:
            described.append(_described(encoder, split, most, bar))
    spaces = {name: fit_space(vectors) for name, vectors in described[0].items()}
    far = np.stack([space.distance(described[1][name]) for name, space in spaces.items()], axis=1)
    limited = {
        name: replace(space, limit=float(limit))
        for (name, space), limit in zip(spaces.items(), limits(far), strict=True)
    }
    counts = [len(next(iter(part.values()))) for part in described]
    return Typicality(limited, *counts)


def _described(encoder: Encoder, split: ShardSet, most: int, bar: Progress) -> dict[str, np.ndarray]:
    n = len(split)
    chosen = np.arange(n) if n <= most else np.sort(np.random.default_rng(0).choice(n, most, replace=False))
    layers = _layers(encoder.module, encoder.image_size, encoder.device)
    parts = []
    for _, images in batches(split, chosen, encoder.image_size):
        parts.append(describe(encoder, images, layers))
        bar.add(len(images))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def write(path: Path, found: Typicality, model: str) -> None:
    """Write what was fitted; `model` is the hash of the weights it belongs to."""
    tensors, facts = {}, {}
    for number, (name, space) in enumerate(found.spaces.items()):
        tensors |= {f"{number}.mean": torch.from_numpy(space.mean), f"{number}.axes": torch.from_numpy(space.axes)}
        facts[str(number)] = {"name": name, "rest": space.rest, "limit": space.limit}
    about: dict[str, Any] = {"format": FORMAT, "model": model, "spaces": json.dumps(facts)}
    about |= {"n_train": str(found.n_train), "n_val": str(found.n_val)}
    weights.write(path, tensors, about)


def read(path: Path, model: str) -> Typicality | None:
    """What `write` wrote; None where there is nothing, or it belongs to other weights.

    Raises:
        InputError: the file is damaged.
    """
    if not path.is_file():
        return None
    tensors, about = weights.read(path)
    if about.get("format") != FORMAT or about.get("model") != model:
        return None
    try:
        facts = json.loads(about["spaces"])
        spaces = {
            held["name"]: Space(
                tensors[f"{number}.mean"].numpy(), tensors[f"{number}.axes"].numpy(), held["rest"], held["limit"]
            )
            for number, held in facts.items()
        }
        return Typicality(spaces, int(about["n_train"]), int(about["n_val"]))
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}); delete it, predict makes it again") from None
