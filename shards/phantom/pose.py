"""How one image was taken, and what disease has done to the shape of the chest in it."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pose:
    """One exposure: the patient's position and the machine's settings."""

    view: str
    """PA (standing, from behind) or AP (often a bed-side image)."""
    scale: float
    """Magnification."""
    turn: float
    """Tilt in the image's plane, radians."""
    move: tuple[float, float]
    """Displacement in unit coordinates."""
    twist: float
    """Rotation about the body's axis: shift of the mediastinum against the ribs, unit coordinates."""
    inspiration: float
    """How far the diaphragm stands above full inspiration, unit coordinates."""
    exposure: float
    """Offset of the attenuation; positive = paler."""
    contrast: float
    """Slope of the tone curve, 1 = usual."""
    noise: float
    """Standard deviation of the noise in grey levels / 255."""


@dataclasses.dataclass(kw_only=True)
class Shape:
    """What disease changes of the outline; everything 0 in a healthy chest."""

    heart: float = 0.0
    """Added to the cardiothoracic ratio."""
    pedicle: float = 0.0
    """Widening of the upper mediastinum, unit coordinates."""
    inflate: float = 0.0
    """Hyperinflation: lengthens the lungs and flattens the domes, 0..1."""
    lift: list[float] = dataclasses.field(default_factory=lambda: [0.0, 0.0])
    """Elevation of the right and left dome, unit coordinates."""
    shift: float = 0.0
    """Displacement of heart and trachea, unit coordinates, positive = to the patient's left."""
    cephalise: float = 0.0
    """Upper-lobe vessels as wide as the lower ones, 0..1."""


def draw_pose(rng: np.random.Generator, *, ap_share: float) -> Pose:
    """Draw an exposure; `ap_share` is the probability of an AP view."""
    ap = bool(rng.random() < ap_share)
    spread = 1.6 if ap else 1.0
    return Pose(
        view="AP" if ap else "PA",
        scale=float(np.clip(rng.normal(1.03 if ap else 1.0, 0.035), 0.9, 1.13)),
        turn=float(rng.normal(0, 0.012 * spread)),
        move=(float(rng.normal(0, 0.012 * spread)), float(rng.normal(0, 0.014 * spread))),
        twist=float(np.clip(rng.normal(0, 0.006 * spread), -0.02, 0.02)),
        inspiration=float(np.clip(rng.normal(0.05 if ap else 0.012, 0.018), -0.02, 0.1)),
        exposure=float(rng.normal(0.02 if ap else 0.0, 0.05)),
        contrast=float(np.clip(rng.normal(0.85 if ap else 1.0, 0.12), 0.55, 1.35)),
        noise=float(rng.uniform(0.008, 0.022) if ap else rng.uniform(0.005, 0.013)),
    )
