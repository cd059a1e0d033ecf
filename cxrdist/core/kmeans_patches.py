"""`kmeans-patches`: features without a network, after Coates, Lee and Ng (2011) and Coates and Ng (2011).

"An analysis of single-layer networks in unsupervised feature learning" and "The importance of encoding versus training
with sparse coding and vector quantization".

Small patches of unlabelled images, normalised in contrast and whitened, are clustered by k-means. An image is described
by how near its patches are to each centre (the triangle activation), averaged over the cells of a grid.

Shapes: B images, S side in pixels, p side of a patch, N patches, K centres, g cells a side of the grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import nn

from cxrdist.core.initialisation import KMEANS_PATCHES
from cxrdist.core.kmeans_config import KMeansConfig
from cxrdist.errors import InputError

CONTRAST = 10 / 255**2
"""Added to a patch's variance, of grey values in [0, 1], before it is divided by: Coates and Ng's 10 of values in
[0, 255]. It keeps the noise of flat patches small."""
WHITENING = 0.1
"""Added to the eigenvalues of the patches' covariance (Coates and Ng's, after the contrast normalisation)."""
_MOST_ACTIVATIONS = 1 << 23
"""Activations computed at once, 32 MB of float32."""


class PatchFeatures(nn.Module):
    """Grey images (B, 1, S, S) in [0, 1] -> features (B, K g g); the state is the dictionary and the grid.

    Args:
        centres: K, centres of k-means.
        patch: p, pixels.
        grid: g.
    """

    def __init__(self, centres: int, patch: int, grid: int):
        super().__init__()

        def fixed(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(shape), requires_grad=False)

        self.mean, self.whitening, self.centres = fixed(patch**2), fixed(patch**2, patch**2), fixed(centres, patch**2)
        self.register_buffer("grid", torch.tensor(grid))
        self.patch, self.cells = patch, grid
        self.num_features = centres * grid**2

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return features (B, K g g) in float32: all centres of the first cell, then of its right neighbour, ...

        An activation is max(0, mean distance to the centres - distance to this one), its mean over a cell's patches is
        a feature. A patch belongs to the cell that its upper left pixel falls into.
        """
        with torch.autocast(images.device.type, enabled=False):
            parts = [self._cell(images.float(), rows, columns) for rows, columns in self._spans(images.shape[-1])]
        return torch.cat(parts, 1)

    def _spans(self, side: int) -> Iterator[tuple[range, range]]:
        places, g = _places(side, self.patch, self.cells), self.cells
        spans = [range(places * i // g, places * (i + 1) // g) for i in range(g)]
        return ((rows, columns) for rows in spans for columns in spans)

    def _cell(self, images: torch.Tensor, rows: range, columns: range) -> torch.Tensor:
        """Features (B, K) of the patches that begin in `rows` and `columns`."""
        border = self.patch - 1
        part = images[:, :, rows.start : rows.stop + border, columns.start : columns.stop + border]
        at_once = max(1, _MOST_ACTIVATIONS // (len(rows) * len(columns) * len(self.centres)))
        return torch.cat([self._activation(some).mean(1) for some in part.split(at_once)])

    def _activation(self, images: torch.Tensor) -> torch.Tensor:
        """Triangle activations (B, patches, K) of all patches of some images."""
        patches = nn.functional.unfold(images.contiguous(), self.patch).transpose(1, 2)
        white = (normalised(patches) - self.mean) @ self.whitening
        squares = white.square().sum(-1, keepdim=True) + self.centres.square().sum(-1)
        distance = (squares - 2 * white @ self.centres.T).clamp_(min=0).sqrt_()
        return (distance.mean(-1, keepdim=True) - distance).clamp_(min=0)


def _places(side: int, patch: int, grid: int) -> int:
    """Number of places a side at which a patch can begin.

    Raises:
        InputError: there are fewer than cells of the grid.
    """
    places = side - patch + 1
    if places < grid:
        raise InputError(f"kmeans.patch {patch} and kmeans.grid {grid} do not fit into images of {side} pixels")
    return places


def normalised(patches: torch.Tensor) -> torch.Tensor:
    """Patches (..., p p) of grey values in [0, 1], each less its mean and divided by its deviation."""
    centred = patches - patches.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + CONTRAST).sqrt()


def of_state(tensors: Mapping[str, torch.Tensor], file: object, prefix: str = "backbone.") -> PatchFeatures:
    """Features of the shape that a state dict says, without its values.

    Args:
        tensors: the state dict.
        file: where it came from, for the error.
        prefix: of its names.

    Raises:
        InputError: it holds no dictionary.
    """
    try:
        centres, grid = tensors[f"{prefix}centres"], int(tensors[f"{prefix}grid"])
        patch = round(centres.shape[1] ** 0.5)
        if grid < 1 or patch**2 != centres.shape[1]:
            raise ValueError
    except (KeyError, IndexError, ValueError, RuntimeError):
        raise InputError(
            f"{file} holds no dictionary of {KMEANS_PATCHES}: centres or grid are missing or of another shape"
        ) from None
    return PatchFeatures(len(centres), patch, grid)


def learn(batches: Iterator[torch.Tensor], n_images: int, config: KMeansConfig) -> PatchFeatures:
    """Learn a dictionary; a function of the images and the configuration, on any number of threads.

    Args:
        batches: the images in order, uint8 (B, 1, S, S) each.
        n_images: how many there are.
        config: sizes and seed.

    Raises:
        InputError: fewer patches than centres, or a patch larger than the images.
    """
    from sklearn.cluster import MiniBatchKMeans
    from threadpoolctl import threadpool_limits

    features = PatchFeatures(config.centres, config.patch, config.grid)
    with threadpool_limits(1), torch.no_grad():
        patches = normalised(torch.from_numpy(_drawn(batches, n_images, config))).double().numpy()
        mean, whitening = _whitening(patches)
        white = ((patches - mean) @ whitening).astype(np.float32)
        found = MiniBatchKMeans(
            config.centres,
            random_state=np.random.RandomState(np.random.MT19937(config.seed)),
            batch_size=10_000,
            init_size=max(10_000, 3 * config.centres),
            max_iter=config.passes,
            max_no_improvement=None,  # pyright: ignore[reportArgumentType]  (documented; scikit-learn's types lack it)
            n_init=1,  # pyright: ignore[reportArgumentType]
        ).fit(white)
    state = {"mean": mean, "whitening": whitening, "centres": found.cluster_centers_}
    tensors = {name: torch.from_numpy(np.asarray(value, np.float32)) for name, value in state.items()}
    features.load_state_dict(tensors | {"grid": torch.tensor(config.grid)})
    return features.eval()


def _whitening(patches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (p p,) and symmetric ZCA matrix (p p, p p) of normalised patches, float64 (N, p p)."""
    mean = patches.mean(0)
    values, vectors = np.linalg.eigh(np.cov(patches - mean, rowvar=False, bias=True))
    return mean, (vectors / np.sqrt(values.clip(0) + WHITENING)) @ vectors.T


def _drawn(batches: Iterator[torch.Tensor], n_images: int, config: KMeansConfig) -> np.ndarray:
    """Patches at random places, float32 (N, p p) of grey values in [0, 1], as many of each image as of every other."""
    rng = np.random.default_rng([config.seed, 0x6B6D])
    each, p = -(-config.patches // n_images), config.patch
    spots, parts, start = None, [], 0
    for batch in batches:
        images = batch[:, 0].numpy()
        if spots is None:  # of all images at once, so that the size of batches is of no effect
            spots = rng.integers(0, _places(images.shape[-1], p, config.grid), (n_images, each, 2))
        y, x = spots[start : start + len(images)].transpose(2, 0, 1)
        windows = np.lib.stride_tricks.sliding_window_view(images, (p, p), (1, 2))
        parts.append(windows[np.arange(len(images))[:, None], y, x].reshape(-1, p * p))
        start += len(images)
    found = np.concatenate(parts)[: config.patches].astype(np.float32) / 255
    if len(found) < config.centres:
        raise InputError(f"kmeans.centres is {config.centres}, more than the {len(found)} patches to learn from")
    return found
