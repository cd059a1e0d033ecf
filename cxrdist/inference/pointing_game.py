"""The boxes of a shard set as a model sees them, and the pointing game that scores heat maps against them.

Shapes: S side in pixels, n samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cxrdist.errors import InputError
from shards import ShardSet
from shards.format import file_sha256
from shards.parquet import read_table

NIH_SIDE = 1024
"""BBox_List_2017.csv counts in the pixels of the published 1024 x 1024 images, also beside shrunk copies of them."""


@dataclass(frozen=True)
class Box:
    """One box in the model's square view: 0..1 from its left and top edge."""

    label: str
    left: float
    top: float
    right: float
    bottom: float

    @property
    def area(self) -> float:
        """Share of the view."""
        return (self.right - self.left) * (self.bottom - self.top)


def read_boxes(shards: ShardSet) -> dict[str, list[Box]]:
    """Boxes by sample key, cut to the centre square that models see; empty where the set has no boxes.parquet.

    Raises:
        InputError: the file is damaged.
    """
    path = Path(shards.path) / "boxes.parquet"
    if not path.is_file():
        return {}
    wanted = shards.card.files.get(path.name)
    if wanted is not None and file_sha256(path) != wanted:
        raise InputError(
            f"{path} was changed or damaged: its sha256 is not that of the card; convert the dataset again"
        )
    rows = read_table(path, ("key", "label", "x", "y", "width", "height")).to_pylist()
    shape = read_table(Path(shards.path) / "index.parquet", ("key", "height", "width")).to_pydict()
    sizes = dict(zip(shape["key"], zip(shape["height"], shape["width"], strict=True), strict=True))
    published = shards.card.name == "nih"
    found: dict[str, list[Box]] = {}
    for row in rows:
        if row["key"] not in sizes:
            continue
        height, width = (NIH_SIDE, NIH_SIDE) if published else sizes[row["key"]]
        box = _in_view(row, height, width)
        if box is not None:
            found.setdefault(row["key"], []).append(box)
    return found


def _in_view(row: dict[str, float], height: int, width: int) -> Box | None:
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2

    def cut(value: float, origin: int) -> float:
        return float(np.clip((value - origin) / side, 0, 1))

    box = Box(
        str(row["label"]),
        cut(row["x"], left),
        cut(row["y"], top),
        cut(row["x"] + row["width"], left),
        cut(row["y"] + row["height"], top),
    )
    return box if box.area > 0 else None


def peak(heat: np.ndarray) -> tuple[float, float] | None:
    """(x, y) in 0..1 of the hottest pixel's middle of a map (S, S); the centre of all that tie; None where all is 0."""
    top = float(heat.max())
    if not np.isfinite(top) or top <= 0:
        return None
    y, x = np.nonzero(heat >= top)
    return (float(x.mean()) + 0.5) / heat.shape[1], (float(y.mean()) + 0.5) / heat.shape[0]


def is_hit(heat: np.ndarray, boxes: list[Box]) -> bool:
    """The pointing game (Zhang et al., ECCV 2016), strict: the hottest point lies in one of the label's boxes.

    A map without a positive value misses.
    """
    point = peak(heat)
    if point is None:
        return False
    x, y = point
    return any(box.left <= x <= box.right and box.top <= y <= box.bottom for box in boxes)


def covered(boxes: list[Box], grid: int = 200) -> float:
    """Share of the view that boxes cover together: what a point thrown at random hits."""
    return float(_inside(boxes, grid).mean())


def energy(heat: np.ndarray, boxes: list[Box]) -> float:
    """Share of a map's sum (S, S) that lies inside the boxes (the energy-based pointing game, Wang et al. 2020).

    0 where the map is flat 0; by chance it is what the boxes cover.
    """
    total = float(heat.sum(dtype=np.float64))
    if not np.isfinite(total) or total <= 0:
        return 0.0
    return float(heat[_inside(boxes, heat.shape[0])].sum(dtype=np.float64)) / total


def _inside(boxes: list[Box], grid: int) -> np.ndarray:
    """Which pixels of a square view have their middle inside a box, bool (grid, grid)."""
    ticks = (np.arange(grid) + 0.5) / grid
    mask = np.zeros((grid, grid), dtype=bool)
    for box in boxes:
        inside_y = (ticks >= box.top) & (ticks <= box.bottom)
        mask |= inside_y[:, None] & ((ticks >= box.left) & (ticks <= box.right))[None]
    return mask


def interval(hits: np.ndarray, patients: np.ndarray, *, resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the hit rate, resampling patients (their images stay together)."""
    _, group = np.unique(patients, return_inverse=True)
    n = int(group.max()) + 1
    hit = np.bincount(group, weights=hits.astype(float), minlength=n)
    seen = np.bincount(group, minlength=n).astype(float)
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    rates = (draws @ hit) / (draws @ seen)
    low, high = np.percentile(rates, [2.5, 97.5])
    return float(low), float(high)
