"""Tubes, wires, pacemakers and lead markers."""

from __future__ import annotations

import functools

import cv2
import numpy as np

from .anatomy import SIDES
from .canvas import Canvas, Map
from .curves import Points, blob, ellipse, spline
from .layers import Layers

IMPLANTED = ("pacemaker", "sternotomy", "clips")
"""Devices that stay in a patient for good; the others come and go."""


def draw_device(name: str, layers: Layers, seed: int) -> None:
    """Add one device to the image."""
    _DRAWINGS[name](layers, np.random.default_rng(seed))


def _tube(layers: Layers, line: Points, width: float, strength: float, *, stripe: bool = False) -> None:
    canvas = layers.canvas
    body = canvas.stroke([line], width)
    layers.extra += strength * body
    if stripe:  # the radiopaque thread of a drain or a tube
        layers.extra += 1.2 * strength * canvas.stroke([line], width * 0.3)


def _pacemaker(layers: Layers, rng: np.random.Generator) -> None:
    chest, canvas = layers.chest, layers.canvas
    s = 1 if rng.random() < 0.85 else -1
    x, y = chest.middle + s * 0.25, chest.apex + 0.11 + 0.02 * rng.random()
    can = canvas.fill(blob(rng, x, y, 0.052, 0.044, rough=0.05))
    layers.extra += 0.42 * can + 0.15 * canvas.fill(ellipse(x, y - 0.02, 0.03, 0.012))
    vein = (chest.centre - 0.03, chest.apex + 0.13)
    floor = max(chest.base)
    ends = [(chest.centre + 0.06 + 0.06 * rng.random(), floor - 0.03)]
    if rng.random() < 0.7:
        ends.append((chest.centre - 0.05, floor - 0.17))
    for end in ends:
        line = spline(
            [
                (x, y - 0.03),
                (x - s * 0.07, y - 0.065),
                vein,
                (chest.centre - 0.055, floor - 0.26),
                (chest.centre - 0.045, floor - 0.1),
                end,
            ]
        )
        _tube(layers, line, 0.0036, 0.26)
        layers.extra += 0.3 * canvas.fill(ellipse(end[0], end[1], 0.005, 0.005))


def _sternotomy(layers: Layers, rng: np.random.Generator) -> None:
    chest, canvas = layers.chest, layers.canvas
    rings = []
    for y in np.linspace(chest.apex + 0.12, max(chest.base) - 0.04, 6):
        x = chest.centre + 0.01 * rng.normal()
        rings.append(ellipse(x, y, 0.017, 0.010, tilt=0.3 * rng.normal()))
    layers.extra += 0.26 * canvas.stroke(rings, 0.0036, closed=True)


def _clips(layers: Layers, rng: np.random.Generator) -> None:
    chest = layers.chest
    side = int(rng.integers(2))
    middle = chest.at(side, 0.85, 0.35)
    lines = []
    for _ in range(int(rng.integers(4, 9))):
        at = middle + rng.normal(0, 0.035, 2)
        step = 0.006 * rng.normal(size=2)
        lines.append(np.stack([at - step, at + step]))
    layers.extra += 0.4 * layers.canvas.stroke(lines, 0.004)


def _leads(layers: Layers, rng: np.random.Generator) -> None:
    chest, canvas = layers.chest, layers.canvas
    spots = [(-0.24, 0.08), (0.25, 0.07), (-0.25, 0.42), (0.27, 0.45), (0.06, 0.36)]
    for dx, dy in spots[: int(rng.integers(3, 6))]:
        x, y = chest.middle + dx + 0.03 * rng.normal(), chest.apex + dy + 0.03 * rng.normal()
        layers.extra += 0.07 * canvas.fill(ellipse(x, y, 0.02, 0.02)) + 0.30 * canvas.fill(ellipse(x, y, 0.008, 0.008))
        far = (x + np.sign(dx) * rng.uniform(0.1, 0.4), rng.choice([-0.05, 1.05]))
        bend = ((x + far[0]) / 2 + 0.08 * rng.normal(), (y + far[1]) / 2 + 0.05 * rng.normal())
        _tube(layers, spline([(x, y), bend, far], per_segment=12), 0.0042, 0.16)


def _endotracheal(layers: Layers, rng: np.random.Generator) -> None:
    trachea = layers.chest.airways[0][0]
    tip = len(trachea) - 1 - int(rng.integers(1, 4))
    _tube(layers, trachea[:tip], 0.017, 0.085, stripe=True)


def _gastric(layers: Layers, rng: np.random.Generator) -> None:
    chest = layers.chest
    y = np.linspace(-0.05, chest.base[1] + 0.02, 12)
    down = np.stack([chest.spine_x(y) + 0.012 + 0.004 * rng.normal(), y], axis=1)
    stomach = [(chest.middle + 0.05, chest.base[1] + 0.07), (chest.middle + 0.13, chest.base[1] + 0.12)]
    _tube(layers, spline(np.concatenate([down[::3], stomach])), 0.008, 0.07, stripe=True)


def _line(layers: Layers, rng: np.random.Generator) -> None:
    chest = layers.chest
    s = -1 if rng.random() < 0.7 else 1
    x, tip = chest.centre, chest.apex + rng.uniform(0.26, 0.36)
    if rng.random() < 0.5:  # by the jugular vein
        points = [
            (x + s * 0.09, chest.apex - 0.2),
            (x + s * 0.06, chest.apex),
            (x - 0.045, chest.apex + 0.14),
            (x - 0.05, tip),
        ]
    else:  # from the arm
        points = [
            (x + s * 0.5, chest.apex + 0.2),
            (x + s * 0.33, chest.apex + 0.02),
            (x + s * 0.14, chest.apex + 0.075),
            (x - 0.04, chest.apex + 0.15),
            (x - 0.05, tip),
        ]
    _tube(layers, spline(points), 0.0058, 0.15)


def _drain(layers: Layers, rng: np.random.Generator, side: int) -> None:
    chest, s = layers.chest, SIDES[side]
    start = (float(chest.wall(side, 0.6)) + s * 0.12, chest.apex + 0.5)
    entry = (float(chest.wall(side, 0.55)), chest.apex + 0.42)
    tip = tuple(chest.at(side, 0.55, 0.1 if rng.random() < 0.6 else 0.8))
    way = tuple(chest.at(side, 0.85, 0.4))
    _tube(layers, spline([start, entry, way, tip]), 0.015, 0.06, stripe=True)


_DRAWINGS = {
    "pacemaker": _pacemaker,
    "sternotomy": _sternotomy,
    "clips": _clips,
    "leads": _leads,
    "endotracheal": _endotracheal,
    "gastric": _gastric,
    "line": _line,
    "drain_right": functools.partial(_drain, side=0),
    "drain_left": functools.partial(_drain, side=1),
}


def marker(canvas: Canvas, rng: np.random.Generator, *, portable: bool) -> Map:
    """The side marker (L beside the patient's left shoulder) and, in bed-side images, the word PORTABLE."""
    mask = np.zeros((canvas.height, canvas.width), np.uint8)
    side = canvas.side

    def write(text: str, x: float, y: float, height: float) -> None:
        scale = height * side / 22
        if scale < 0.15:
            return
        at = (int(x * side + (canvas.width - side) / 2), int(y * side + (canvas.height - side) / 2))
        cv2.putText(mask, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, max(1, round(scale * 1.6)), cv2.LINE_AA)

    x, y = 0.88 + 0.04 * rng.random(), 0.05 + 0.14 * rng.random()
    write("L" if rng.random() < 0.8 else "LO", x, y, rng.uniform(0.04, 0.065))
    if portable and rng.random() < 0.6:
        write("PORTABLE", 0.03 + 0.08 * rng.random(), y + 0.03 * rng.random(), 0.024)
    return mask.astype(np.float32) * np.float32(rng.uniform(0.5, 0.95) / 255)
