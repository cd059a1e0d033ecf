"""Curves and outlines in unit coordinates: x to the right, y down, 1 = the side of the square image.

Legend: N points; every outline is float64 (N, 2).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Points = NDArray[np.float64]


def spline(points: ArrayLike, *, closed: bool = False, per_segment: int = 8) -> Points:
    """Catmull-Rom curve through `points` (N, 2); `per_segment` samples between neighbours."""
    p = np.asarray(points, dtype=np.float64)
    if closed:
        p = np.concatenate([p[-1:], p, p[:2]])
    else:
        p = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
    t = np.arange(per_segment)[None, :, None] / per_segment
    a, b, c, d = (p[i : len(p) - 3 + i, None, :] for i in range(4))
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    curve = curve.reshape(-1, 2)
    return curve if closed else np.concatenate([curve, p[-2:-1]])


def ribbon(centre: Points, half_width: ArrayLike) -> Points:
    """Closed outline (..., 2 N, 2) of a band along `centre` (..., N, 2); `half_width` is one number or (..., N).

    Many bands of one length are made at once: an image has some forty ribs, and small arrays cost as much as large.
    """
    tangent = np.empty_like(centre)
    tangent[..., 1:-1, :] = (centre[..., 2:, :] - centre[..., :-2, :]) / 2
    tangent[..., 0, :] = centre[..., 1, :] - centre[..., 0, :]
    tangent[..., -1, :] = centre[..., -1, :] - centre[..., -2, :]
    x, y = tangent[..., 0], tangent[..., 1]
    tangent /= np.maximum(np.sqrt(x * x + y * y), 1e-9)[..., None]
    normal = np.stack([-y, x], axis=-1)
    offset = normal * np.broadcast_to(np.asarray(half_width, dtype=np.float64), centre.shape[:-1])[..., None]
    return np.concatenate([centre + offset, (centre - offset)[..., ::-1, :]], axis=-2)


def ellipse(cx: float, cy: float, rx: float, ry: float, *, tilt: float = 0.0, n: int = 32) -> Points:
    """Outline of an ellipse with radii `rx`, `ry`, turned by `tilt` radians."""
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
    x, y = rx * np.cos(angle), ry * np.sin(angle)
    return np.stack([cx + x * np.cos(tilt) - y * np.sin(tilt), cy + x * np.sin(tilt) + y * np.cos(tilt)], axis=1)


def blob(rng: np.random.Generator, cx: float, cy: float, rx: float, ry: float, *, rough: float, n: int = 9) -> Points:
    """A lobed closed outline around (cx, cy); `rough` is the relative spread of its radius."""
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False) + rng.uniform(0, 2 * np.pi / n)
    radius = 1 + rough * rng.uniform(-1, 1, n)
    return spline(np.stack([cx + rx * radius * np.cos(angle), cy + ry * radius * np.sin(angle)], axis=1), closed=True)
