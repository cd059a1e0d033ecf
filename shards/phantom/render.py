"""From a case to grey levels: lay out, draw, expose."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
from numpy.typing import NDArray

from .canvas import Canvas, Map
from .case import Case, Style
from .devices import draw_device, marker
from .drawings import DRAWINGS
from .findings import reshape
from .geometry import build
from .layers import compose
from .pose import Shape

_OUTSIDE = frozenset(["cardiomegaly", "enlarged_cardiomediastinum", "hernia", "fracture"])
"""Findings that are not in the aerated lung."""

Box = tuple[str, float, float, float, float]
"""A finding and its box: x, y, width, height as fractions of the image's width and height."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """One drawn X-ray."""

    image: NDArray[np.uint8]
    """Grey levels (H, W), dense = white."""
    boxes: tuple[Box, ...]
    """Where each finding can be seen."""
    ctr: float
    """Cardiothoracic ratio as drawn."""


def render(case: Case, style: Style, height: int, width: int) -> Picture:
    """Draw a case at `height` x `width` pixels; the same case gives the same bytes."""
    # Small images are drawn at twice the size and averaged, so that thin lines keep their weight.
    zoom = 2 if min(height, width) < 256 else 1
    pose = case.pose
    canvas = Canvas(height * zoom, width * zoom, scale=pose.scale, turn=pose.turn, move=pose.move)
    rng = np.random.Generator(np.random.PCG64(case.texture_seed))
    shape = Shape()
    for finding in case.findings:
        reshape(finding, shape)
    chest = build(case.anatomy, pose, shape)
    layers = compose(chest, canvas, rng)
    # Where there is lung to be seen: under the heart a finding hides, and its box would reach too far.
    aerated = (layers.air > 0.22).astype(np.float32)
    boxes: list[Box] = []
    found = {finding.name: finding for finding in case.findings}
    for name, draw in DRAWINGS.items():
        if name not in found:
            continue
        seen = draw(found[name], layers, found[name].rng())
        boxes += [(name, *box) for box in _boxes(canvas, name, seen, aerated)]
    for name, seed in case.devices:
        draw_device(name, layers, seed)
    attenuation = layers.attenuation() + 0.6 * marker(canvas, rng, portable=pose.view == "AP")
    if zoom > 1:
        attenuation = cv2.resize(attenuation, (width, height), interpolation=cv2.INTER_AREA)
    image = expose(attenuation, pose.exposure, pose.contrast, pose.noise, style, rng)
    return Picture(image=image, boxes=tuple(boxes), ctr=chest.ctr)


def _boxes(canvas: Canvas, name: str, seen: Map, aerated: Map) -> list[tuple[float, float, float, float]]:
    """Boxes of one finding: one, but for several nodules one each; none where nothing can be seen."""
    if name == "nodule":
        return canvas.boxes(seen, 0.4)
    inside = seen if name in _OUTSIDE else seen * aerated
    box = canvas.box(inside, 0.4 * max(float(seen.max()), 0.2)) or canvas.box(seen, 0.4 * float(seen.max()))
    return [box] if box else []


def expose(
    attenuation: Map, exposure: float, contrast: float, noise: float, style: Style, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Scatter, tone curve and noise: attenuation (H, W) to grey levels (H, W)."""
    height, width = attenuation.shape
    side = min(height, width)
    small = cv2.resize(attenuation, (16, 16 * height // width or 1), interpolation=cv2.INTER_AREA)
    scatter = cv2.resize(cv2.GaussianBlur(small, (0, 0), 1.5), (width, height), interpolation=cv2.INTER_LINEAR)
    film = 0.86 * attenuation + 0.14 * scatter + np.float32(exposure)
    slope, middle = (4.2, 0.60) if style.equalise else (5.4, 0.56)
    slope *= contrast
    black = 0.85 / (1 + np.exp(slope * middle))  # most of what room air would show as is windowed away
    grey = (1 / (1 + np.exp(-slope * (film - middle))) - black) / (1 - black)
    # Few photons pass through dense parts: the log signal is noisier there. The detector blurs the grain a little.
    _collimate(grey, rng)
    grain = rng.standard_normal((height, width), dtype=np.float32)
    if side >= 192:
        grain = cv2.GaussianBlur(grain, (0, 0), 0.55) * np.float32(1.45)
    if style.equalise:
        noise *= 0.6  # equalising will stretch it again
    grey += np.float32(noise) * (0.5 + attenuation) * grain
    image = np.clip(grey * 255 + 0.5, 0, 255).astype(np.uint8)
    if style.equalise:
        flat = cv2.equalizeHist(image)
        image = np.asarray(cv2.addWeighted(flat, style.equalise, image, 1 - style.equalise, 0), dtype=np.uint8)
    return image


def _collimate(grey: Map, rng: np.random.Generator) -> None:
    """Give some images an unexposed (white) or masked (black) border."""
    drawn, edge, share, white = rng.random(4)
    if drawn > 0.18:
        return
    height, width = grey.shape
    strip = max(1, int((0.01 + 0.035 * share) * min(height, width)))
    where = (np.s_[:strip], np.s_[-strip:], np.s_[:, :strip], np.s_[:, -strip:])[int(edge * 4)]
    grey[where] = 0.95 if white < 0.4 else 0.0
