"""Settings of the dictionary of `init kmeans-patches`. Free of torch and NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from shards.ranges import SEEDS


@dataclass(frozen=True, kw_only=True)
class KMeansConfig:
    """The dictionary of init kmeans-patches, learnt from the train images without their labels."""

    centres: Annotated[int, "[2, 65536]"] = 800
    """Centres of k-means. The features are `centres` times `grid` squared numbers."""
    patch: Annotated[int, "[2, 64]"] = 6
    """Side of a patch, pixels of the image at `image_size`."""
    grid: Annotated[int, "[1, 16]"] = 4
    """Cells a side of the grid over which activations are averaged; 2 = quadrants, as published."""
    patches: Annotated[int, "[100, 10^7]"] = 100_000
    """Patches that the centres are learnt from, equally many of each image."""
    images: Annotated[int, "[1, inf)"] = 10_000
    """Train images that patches are taken from, at most; drawn at random where there are more."""
    passes: Annotated[int, "[1, 10000]"] = 20
    """Passes of mini-batch k-means over the patches."""
    seed: Annotated[int, SEEDS] = 0
    """Of the patches drawn and of k-means. It is the dictionary's own, so that the seeds of a study vary the labels
    drawn, as they do for other frozen encoders."""
