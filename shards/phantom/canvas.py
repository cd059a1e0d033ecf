"""An image to draw on: turns unit coordinates into pixels and shapes into smooth float32 maps (H, W)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .curves import Points

Map = NDArray[Any]
"""A float32 map (H, W)."""
_SHIFT = 4  # fractional bits of OpenCV's fixed-point coordinates


class Canvas:
    """Pixel grid of `height` x `width` whose central square, `side` pixels wide, is the unit square.

    `scale`, `turn` (radians) and `move` place the patient: they act about the middle of the unit square.
    """

    def __init__(
        self, height: int, width: int, *, scale: float = 1.0, turn: float = 0.0, move: tuple[float, float] = (0.0, 0.0)
    ) -> None:
        """Set up the placement; nothing is drawn yet."""
        self.height, self.width, self.side = height, width, min(height, width)
        cos, sin = scale * np.cos(turn), scale * np.sin(turn)
        self._linear = np.array([[cos, -sin], [sin, cos]]) * self.side
        self._offset = np.array([width, height]) / 2 + np.array(move) * self.side
        self.pixel = 1.0 / (self.side * scale)  # size of one pixel in unit coordinates
        inverse = np.linalg.inv(self._linear)
        grid = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1) - self._offset
        unit = (grid @ inverse.T + 0.5).astype(np.float32)
        self.x, self.y = np.ascontiguousarray(unit[..., 0]), np.ascontiguousarray(unit[..., 1])

    def blank(self) -> Map:
        """A map of zeros, float32 (H, W)."""
        return np.zeros((self.height, self.width), np.float32)

    def to_pixels(self, points: Points) -> NDArray[np.float64]:
        """Unit coordinates (N, 2) to pixel coordinates (N, 2)."""
        return (points - 0.5) @ self._linear.T + self._offset

    def _fixed(self, points: Points) -> NDArray[np.int32]:
        return np.round((self.to_pixels(points) - 0.5) * (1 << _SHIFT)).astype(np.int32)

    def _all_fixed(self, outlines: Sequence[Points]) -> list[NDArray[np.int32]]:
        """`_fixed` of each outline, computed at once."""
        if len(outlines) < 2:
            return [self._fixed(outline) for outline in outlines]
        ends = list(itertools.accumulate(map(len, outlines)))
        fixed = self._fixed(np.concatenate(outlines))
        return [fixed[end - len(outline) : end] for outline, end in zip(outlines, ends, strict=True)]

    def fill(self, *outlines: Points) -> Map:
        """Union of closed outlines as coverage in [0, 1]."""
        mask = np.zeros((self.height, self.width), np.uint8)
        for outline in self._all_fixed(outlines):
            cv2.fillPoly(mask, [outline], 255, cv2.LINE_AA, _SHIFT)
        return mask.astype(np.float32) * np.float32(1 / 255)

    def stroke(self, lines: Sequence[Points] | Points, width: float, *, closed: bool = False) -> Map:
        """Lines of a given unit width as coverage in [0, 1]; thinner than a pixel they grow paler instead."""
        mask = np.zeros((self.height, self.width), np.uint8)
        self._stroke_on(mask, lines, width, closed)
        return mask.astype(np.float32) * np.float32(1 / 255)

    def strokes(self, groups: Sequence[tuple[Points, float, float]]) -> Map:
        """Groups (lines (M, N, 2), width, strength in [0, 1]) over each other; later ones win where they cross."""
        mask = np.zeros((self.height, self.width), np.uint8)
        for lines, width, strength in groups:
            self._stroke_on(mask, lines, width, False, strength)
        return mask.astype(np.float32) * np.float32(1 / 255)

    def _stroke_on(
        self,
        mask: NDArray[np.uint8],
        lines: Sequence[Points] | Points,
        width: float,
        closed: bool,
        strength: float = 1.0,
    ) -> None:
        pixels = width / self.pixel
        value = int(round(255 * strength * min(1.0, pixels)))
        if len(lines):
            fixed = list(self._fixed(lines)) if isinstance(lines, np.ndarray) else self._all_fixed(lines)
            cv2.polylines(mask, fixed, closed, value, max(1, round(pixels)), cv2.LINE_AA, _SHIFT)

    def blur(self, image: Map, sigma: float) -> Map:
        """Gaussian blur with a unit-coordinate sigma; large ones are done at a lower resolution."""
        pixels = sigma / self.pixel
        if pixels < 0.3:
            return image
        if pixels > 6:
            factor = int(pixels // 3)
            small = cv2.resize(
                image, (max(2, self.width // factor), max(2, self.height // factor)), interpolation=cv2.INTER_AREA
            )
            small = cv2.GaussianBlur(small, (0, 0), pixels / factor)
            return cv2.resize(small, (self.width, self.height), interpolation=cv2.INTER_LINEAR)
        return cv2.GaussianBlur(image, (0, 0), pixels)

    def depth(self, mask: Map, edge: float) -> Map:
        """Thickness of a rounded body seen from the front: 0 at the outline, 1 further in than `edge`.

        The profile is that of a cylinder's rim, sqrt(1 - (1 - d)^2) with d the distance to the outline / edge.
        """
        distance = cv2.distanceTransform((mask > 0.5).astype(np.uint8), cv2.DIST_L2, 3)
        d = np.minimum(distance * np.float32(self.pixel / edge), 1)
        return np.sqrt(d * (2 - d)) * np.minimum(1, mask * 2)

    def texture(self, rng: np.random.Generator, scale: float, octaves: int = 3) -> Map:
        """Smooth random field, about standard normal, whose largest lumps measure `scale`."""
        total, norm = self.blank(), 0.0
        for octave in range(octaves):
            step = scale / 2**octave
            if step < self.pixel:
                break
            cells_y, cells_x = int(self.height * self.pixel / step) + 2, int(self.width * self.pixel / step) + 2
            grid = rng.standard_normal((cells_y, cells_x), dtype=np.float32)
            weight = 0.6**octave
            total += weight * cv2.resize(grid, (self.width, self.height), interpolation=cv2.INTER_CUBIC)
            norm += weight**2 * 0.5
        return total / np.float32(max(norm, 1e-6) ** 0.5)

    def boxes(self, mask: Map, threshold: float) -> list[tuple[float, float, float, float]]:
        """One box as `box` gives it for every separate part of mask > threshold, from the top down."""
        _, _, parts, _ = cv2.connectedComponentsWithStats((mask > threshold).astype(np.uint8))
        return [
            (int(x) / self.width, int(y) / self.height, int(w) / self.width, int(h) / self.height)
            for x, y, w, h, _ in parts[1:]
        ]

    def box(self, mask: Map, threshold: float) -> tuple[float, float, float, float] | None:
        """Bounding box (x, y, w, h) of mask > threshold as fractions of the image's width and height."""
        x, y, w, h = cv2.boundingRect((mask > threshold).astype(np.uint8))
        if w == 0 or h == 0:
            return None
        return x / self.width, y / self.height, w / self.width, h / self.height
