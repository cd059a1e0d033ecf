"""The findings: where each sits, how large it is, and what it does to the picture.

A finding has two moments: `reshape` changes outlines (a wide heart, a raised diaphragm) before the chest is laid
out, `draw` changes the maps afterwards and returns where it can be seen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from .anatomy import SIDES
from .canvas import Map
from .curves import Points, blob, ellipse, ribbon, spline
from .layers import Layers
from .pose import Shape


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """One finding in one picture."""

    name: str
    """Canonical label, e.g. pleural_effusion."""
    size: float
    """0 = barely visible, 1 = as large as it gets."""
    side: int
    """0 = right lung, 1 = left lung; ignored by findings of the whole chest."""
    u: float
    """Place across the lung, 0 = mediastinum .. 1 = chest wall; not every finding uses it."""
    v: float
    """Place along the lung, 0 = apex .. 1 = diaphragm."""
    seed: int
    """Seed of its details; the same in the next picture of a finding that persists."""

    def rng(self) -> np.random.Generator:
        """A fresh generator for the details."""
        return np.random.default_rng(self.seed)


Drawing = Callable[[Finding, Layers, np.random.Generator], Map]


def reshape(finding: Finding, shape: Shape) -> None:
    """Change the outlines of the chest as the finding does."""
    size = finding.size
    match finding.name:
        case "cardiomegaly":
            shape.heart += 0.07 + 0.13 * size
        case "enlarged_cardiomediastinum":
            shape.pedicle += 0.018 + 0.035 * size
        case "emphysema":
            shape.inflate += 0.45 + 0.55 * size
        case "edema":
            shape.cephalise += 0.5 + 0.5 * size
            shape.heart += 0.03 * size
        case "atelectasis":
            shape.lift[finding.side] += 0.015 + 0.05 * size
            shape.shift += SIDES[finding.side] * 0.018 * size
        case "fibrosis":
            shape.lift[0] += 0.02 * size
            shape.lift[1] += 0.02 * size
        case "pneumothorax" if size > 0.75:
            shape.shift -= SIDES[finding.side] * 0.05 * (size - 0.75) / 0.25
        case "pleural_effusion" if size > 0.8:
            shape.shift -= SIDES[finding.side] * 0.02
        case _:
            pass


def _patch(layers: Layers, rng: np.random.Generator, outline: Points, soft: float, grain: float) -> Map:
    """A cloudy patch inside the lungs: soft-edged outline broken up by a random field."""
    canvas = layers.canvas
    body = canvas.blur(canvas.fill(outline), soft)
    cloud = canvas.texture(rng, grain, 3)
    return np.clip(body * (1 + 0.45 * cloud * (1.2 - body)), 0, 1) * layers.lung()


def _cardiomegaly(finding: Finding, layers: Layers, rng: np.random.Generator) -> Map:
    return layers.canvas.fill(layers.chest.heart)


def _enlarged(finding: Finding, layers: Layers, rng: np.random.Generator) -> Map:
    return layers.canvas.fill(layers.chest.great_vessels[0]) * (layers.canvas.y > layers.chest.apex)


def _effusion(finding: Finding, layers: Layers, rng: np.random.Generator) -> Map:
    chest, canvas, side = layers.chest, layers.canvas, finding.side
    s, floor, height = SIDES[side], chest.angle[side], 0.035 + 0.33 * finding.size**1.3
    supine = chest.pose.view == "AP" and finding.u > 0.55
    inner = chest.centre
    # u = 0 at the mediastinum, 1 at the wall; fluid climbs the wall (and a little the mediastinum): the meniscus.
    wall = chest.wall(side, np.linspace(0, 1, 32))
    across = np.clip((canvas.x - inner) * s / np.interp(canvas.y, np.linspace(0, 1, 32), np.abs(wall - inner)), 0, 1.2)
    if supine:
        # Lying down, fluid spreads behind the lung: a veil that thins towards the apex.
        reach = np.clip((canvas.y - (chest.apex + 0.08)) / (floor - chest.apex), 0, 1)
        veil = (0.25 + 0.45 * finding.size) * reach**0.8 * layers.lungs[side]
        layers.add_opacity(veil)
        height *= 0.45
    climb = 0.055 + 0.11 * finding.size
    surface = (floor - height) + climb * (1 - across**3.2) - 0.03 * finding.size * np.clip(1 - across * 5, 0, 1)
    surface += 0.004 * canvas.texture(rng, 0.2, 2)
    edge = 0.010 + 0.018 * finding.size
    fluid = np.clip((canvas.y - surface) / edge + 0.5, 0, 1) ** 1.4 * layers.lungs[side]
    layers.add_opacity(0.96 * fluid)
    # The lung above is pressed together and a little denser.
    above = np.exp(-np.clip((surface - canvas.y) / 0.07, 0, 8)) * layers.lungs[side] * (surface > canvas.y)
    layers.add_opacity((0.10 + 0.16 * finding.size) * above)
    return np.maximum(fluid, 0.6 * veil if supine else 0)


def _pneumothorax(finding: Finding, layers: Layers, rng: np.random.Generator) -> Map:
    chest, canvas, side = layers.chest, layers.canvas, finding.side
    s, size, hilum = SIDES[side], finding.size, layers.chest.hila[side]
    # The lung shrinks towards its root, most at the top; a small one touches the wall again further down.
    apex = np.array([chest.centre + s * 0.03, chest.apex + 0.03])
    t = np.linspace(0, 1, 30)
    y = chest.apex + t * (chest.angle[side] - 0.02 - chest.apex)
    edge = np.concatenate([[apex, apex + [s * 0.06, -0.024]], np.stack([chest.wall(side, y), y], axis=1)])
    down = np.clip((edge[:, 1] - chest.apex) / (chest.angle[side] - chest.apex), 0, 1)
    shrink = (0.13 + 0.42 * size) * (1 - down) ** (1.6 - 1.2 * size) + (0.45 * size**2.2) * down
    shrink = shrink * (1 + 0.10 * np.interp(down, np.linspace(0, 1, 6), rng.normal(size=6)) * (1 - 0.7 * size))
    line = spline(hilum + (edge - hilum) * (1 - shrink[:, None]), per_segment=2)
    below = chest.angle[side] + 0.1
    lung = canvas.fill(
        np.concatenate(
            [line, [(line[-1, 0], below), (chest.centre - s * 0.05, below), (chest.centre - s * 0.05, line[0, 1])]]
        )
    )
    space = layers.lungs[side] * (1 - lung)
    inside = layers.lungs[side] * lung
    layers.vessels *= 1 - space
    layers.air *= 1 + (0.14 + 0.08 * size) * space
    layers.add_opacity((0.04 + 0.30 * size**1.5) * inside)
    pleura = canvas.blur(canvas.stroke([line], 0.0042), 0.0008) * layers.lungs[side]
    layers.extra += 0.10 * pleura * np.clip(layers.air, 0, 1)
    return space


def _in_lung(finding: Finding, layers: Layers) -> Points:
    """Where a round lesion stands: anywhere in the lung but under the mediastinum and in the tip of the apex."""
    return layers.chest.at(finding.side, 0.26 + 0.58 * finding.u, 0.15 + 0.71 * finding.v)


def _round(finding: Finding, layers: Layers, rng: np.random.Generator, radius: float, rough: float, peak: float) -> Map:
    canvas = layers.canvas
    x, y = _in_lung(finding, layers)
    outline = blob(rng, x, y, radius * rng.uniform(0.85, 1.15), radius * rng.uniform(0.85, 1.15), rough=rough)
    mask = canvas.fill(outline)
    body = canvas.blur(canvas.depth(mask, radius * 0.9) if radius > 3 * canvas.pixel else mask, radius * 0.07)
    layers.add_opacity(peak * body)
    return body


def _nodule(finding: Finding, layers: Layers, rng: np.random.Generator) -> Map:
    body: Map = layers.canvas.blank()
    for extra in range(1 + int(rng.random() < 0.25) + int(rng.random() < 0.15)):
        place = (
            finding if extra == 0 else dataclasses.replace(finding, u=rng.uniform(0.2, 0.8), v=rng.uniform(0.2, 0.8))
        )
        spot = _round(place, layers, rng, 0.015 + 0.022 * finding.size, 0.07, 0.42 + 0.28 * finding.size)
        body = np.maximum(body, spot)
    return body


def _mass(finding: Finding, layers: Layers, rng: np.random.Generator) -> Map:
    radius = 0.045 + 0.06 * finding.size
    body = _round(finding, layers, rng, radius, 0.16, 0.62 + 0.2 * finding.size)
    x, y = _in_lung(finding, layers)
    if rng.random() < 0.5:  # spiculated rim
        angle = rng.uniform(0, 2 * np.pi, 16)
        near, far = radius * 0.85, radius * rng.uniform(1.15, 1.6, 16)
        heading = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        lines = [np.stack([[x, y] + h * near, [x, y] + h * f]) for h, f in zip(heading, far, strict=True)]
        layers.add_opacity(0.35 * layers.canvas.blur(layers.canvas.stroke(lines, 0.004), 0.001) * layers.lung())
    return body


def _consolidation(finding: Finding, layers: Layers, rng: np.random.Generator) -> Map:
    chest, canvas, side = layers.chest, layers.canvas, finding.side
    x, y = chest.at(side, 0.25 + 0.5 * finding.u, 0.3 + 0.55 * finding.v)
    rx, ry = 0.06 + 0.075 * finding.size, 0.06 + 0.10 * finding.size
    patch = _patch(layers, rng, blob(rng, float(x), float(y), rx, ry, rough=0.22), 0.024, 0.06)
    if rng.random() < 0.45:  # a fissure bounds it sharply above or below
        edge = float(y) + (ry * 0.3 if rng.random() < 0.5 else -ry * 0.3)
        slope = rng.normal(0, 0.15)
        sharp = np.clip((canvas.y - edge - slope * (canvas.x - float(x))) / 0.006 + 0.5, 0, 1)
        patch = patch * (sharp if edge < y else 1 - sharp)
    _bronchogram(layers, rng, side, patch, 0.52 + 0.34 * finding.size)
    return patch


def _bronchogram(layers: Layers, rng: np.random.Generator, side: int, patch: Map, density: float) -> None:
    """Fill a patch, leaving the air-filled bronchi open (air bronchogram)."""
    canvas, hilum, s = layers.canvas, layers.chest.hila[side], SIDES[side]
    lines: list[Points] = []
    for angle in np.linspace(-1.1, 1.4, 7) + rng.normal(0, 0.15, 7):
        t = np.linspace(0, 1, 6)
        heading = angle + rng.normal(0, 0.5) * t
        reach = 0.26 * t
        lines.append(np.stack([hilum[0] + s * reach * np.cos(heading), hilum[1] + reach * np.sin(heading)], axis=1))
    tubes = canvas.blur(canvas.stroke(lines, 0.005), 0.0015)
    layers.add_opacity(density * patch * (1 - 0.4 * tubes * patch))


def _pneumonia(finding: Finding, layers: Layers, rng: np.random.Generator) -> Map:
    chest, side, canvas = layers.chest, finding.side, layers.canvas
    total = canvas.blank()
    x, y = chest.at(side, 0.2 + 0.6 * finding.u, 0.35 + 0.55 * finding.v)
    for _ in range(3 + int(4 * finding.size)):  # several foci that run together
        dx, dy = rng.normal(0, 0.04 + 0.03 * finding.size, 2)
        radius = rng.uniform(0.025, 0.05) * (0.8 + 0.6 * finding.size)
        outline = blob(rng, float(x) + dx, float(y) + dy, radius, radius * rng.uniform(0.7, 1.2), rough=0.3)
        total = np.maximum(total, _patch(layers, rng, outline, 0.018, 0.04))
    total *= layers.lungs[side]
    _bronchogram(layers, rng, side, total, 0.38 + 0.34 * finding.size)
    halo = canvas.blur(total, 0.03) * layers.lungs[side]
    layers.add_opacity(0.22 * halo)
    return total


def _infiltration(finding: Finding, layers: Layers, rng: np.random.Generator) -> Map:
    chest, canvas = layers.chest, layers.canvas
    total = canvas.blank()
    both = rng.random() < 0.4
    for side in (0, 1) if both else (finding.side,):
        x, y = chest.at(side, 0.25 + 0.4 * finding.u, 0.35 + 0.5 * finding.v)
        r2 = ((canvas.x - x) / (0.09 + 0.05 * finding.size)) ** 2 + ((canvas.y - y) / (0.12 + 0.08 * finding.size)) ** 2
        total = np.maximum(total, np.exp(-r2 * 0.9) * layers.lungs[side])
    streaks = np.clip(0.8 + 0.42 * canvas.texture(rng, 0.028, 2) + 0.25 * canvas.texture(rng, 0.10, 2), 0, 2)
    layers.add_opacity((0.16 + 0.24 * finding.size) * total * streaks)
    layers.vessels *= 1 + 0.5 * total
    return total


def _edema(finding: Finding, layers: Layers, rng: np.random.Generator) -> Map:
    chest, canvas = layers.chest, layers.canvas
    wings, lines = canvas.blank(), []
    for side, s in enumerate(SIDES):
        x, y = chest.hila[side]
        r2 = ((canvas.x - (x + s * 0.05)) / 0.14) ** 2 + ((canvas.y - (y + 0.07)) / 0.20) ** 2
        wings = np.maximum(wings, np.exp(-r2) * layers.lungs[side])
        for row in np.linspace(0, 1, 9):  # Kerley B: short lines at right angles to the wall
            wy = chest.angle[side] - 0.03 - 0.13 * row
            wx = float(chest.wall(side, wy)) - s * 0.006
            length = 0.03 * rng.uniform(0.6, 1.2)
            lines.append(np.array([(wx, wy), (wx - s * length, wy + 0.004 * rng.normal())]))
    cloud = np.clip(1 + 0.2 * canvas.texture(rng, 0.07, 3), 0.2, 2)
    layers.add_opacity((0.24 + 0.42 * finding.size) * wings * cloud)
    layers.add_opacity((0.05 + 0.10 * finding.size) * layers.lung())
    layers.vessels = np.minimum(canvas.blur(layers.vessels, 0.003 + 0.003 * finding.size) * 1.25, 1)
    layers.add_opacity(0.30 * (0.4 + finding.size) * canvas.stroke(lines, 0.0024) * layers.lung())
    return wings


def _atelectasis(finding: Finding, layers: Layers, rng: np.random.Generator) -> Map:
    chest, canvas, side = layers.chest, layers.canvas, finding.side
    s = SIDES[side]
    if finding.size > 0.6 and finding.u < 0.5:  # lower-lobe collapse: a wedge beside the spine, behind the heart
        x, y = chest.centre, chest.dome(side, 0.1)
        hilum = chest.hila[side]
        wedge = np.array(
            [
                (x + s * 0.02, hilum[1] + 0.02),
                (hilum[0], hilum[1] + 0.03),
                (x + s * (0.16 + 0.08 * finding.size), float(y) + 0.06),
                (x + s * 0.02, float(y) + 0.06),
            ]
        )
        total = canvas.blur(canvas.fill(wedge), 0.006) * layers.lungs[side]
        layers.add_opacity(0.80 * total)
        return total
    lines = []
    for _ in range(1 + int(rng.random() < 0.35 + 0.5 * finding.size) + int(rng.random() < finding.size)):
        u0 = rng.uniform(0.15, 0.45)
        v0 = np.clip(0.62 + 0.3 * finding.v + rng.normal(0, 0.05), 0.55, 0.95)
        start = chest.at(side, u0, v0)
        length, slant = (0.08 + 0.11 * finding.size) * rng.uniform(0.8, 1.2), rng.normal(0.05, 0.22)
        t = np.linspace(0, 1, 8)
        line = np.stack([start[0] + s * length * t, start[1] + slant * length * t + 0.012 * np.sin(np.pi * t)], axis=1)
        lines.append(ribbon(line, (0.0025 + 0.005 * finding.size) * np.sin(np.pi * (0.06 + 0.88 * t)) ** 0.5))
    plates = canvas.blur(canvas.fill(*lines), 0.0022) * layers.lungs[side]
    layers.add_opacity((0.40 + 0.25 * finding.size) * plates)
    # Loss of volume: the base of that lung is hazy.
    base = np.exp(-np.clip((chest.base[side] + 0.03 - canvas.y) / 0.06, 0, 9)) * layers.lungs[side]
    layers.add_opacity((0.12 + 0.22 * finding.size) * base)
    return np.maximum(plates, 0.2 * base)


def _emphysema(finding: Finding, layers: Layers, rng: np.random.Generator) -> Map:
    canvas = layers.canvas
    layers.vessels *= 0.8
    for _ in range(int(3 * finding.size * rng.random() + 0.5)):  # bullae: thin-walled, empty
        x, y = layers.chest.at(int(rng.integers(2)), rng.uniform(0.35, 0.8), rng.uniform(0.08, 0.4))
        outline = ellipse(float(x), float(y), rng.uniform(0.025, 0.06), rng.uniform(0.03, 0.06))
        inside = canvas.fill(outline) * layers.lung()
        layers.vessels *= 1 - inside
        layers.air *= 1 + 0.1 * inside
        layers.extra += 0.05 * canvas.stroke([outline], 0.003, closed=True) * layers.lung()
    return layers.lung()


def _fibrosis(finding: Finding, layers: Layers, rng: np.random.Generator) -> Map:
    chest, canvas = layers.chest, layers.canvas
    net = 1 - np.clip(np.abs(canvas.texture(rng, 0.022, 2)) * 2.2, 0, 1)  # a mesh: zero crossings of a random field
    apical = finding.v < 0.3
    place = canvas.blank()
    for side in range(2):
        lung, depth = layers.lungs[side], canvas.depth(layers.lungs[side], 0.16)
        v = np.clip((canvas.y - chest.apex) / (chest.base[side] - chest.apex), 0, 1.2)
        zone = np.clip(1 - v * 2.2, 0, 1) if apical else np.clip((v - 0.35) * 1.6, 0, 1)
        place = np.maximum(place, lung * zone * (1.1 - 0.6 * depth))
    layers.add_opacity((0.30 + 0.35 * finding.size) * net * place)
    layers.add_opacity((0.08 + 0.14 * finding.size) * place)
    return place


def _hernia(finding: Finding, layers: Layers, rng: np.random.Generator) -> Map:
    chest, canvas = layers.chest, layers.canvas
    radius = 0.05 + 0.045 * finding.size
    x, y = chest.centre + 0.02 + 0.03 * finding.u, min(chest.base) - 0.01 - 0.3 * radius
    outline = blob(rng, x, y, radius * 1.2, radius, rough=0.08)
    body = canvas.fill(outline)
    layers.add_opacity(0.8 * canvas.blur(body, 0.003) * layers.lung())
    level = np.clip((y - 0.1 * radius - canvas.y) / 0.004 + 0.5, 0, 1)  # air above fluid
    gas = canvas.fill(ellipse(x, y, radius, radius * 0.86)) * level
    layers.tissue -= 0.16 * canvas.blur(gas, 0.002)
    layers.extra += 0.03 * canvas.stroke([outline], 0.005, closed=True)
    return body


def _thickening(finding: Finding, layers: Layers, rng: np.random.Generator) -> Map:
    chest, canvas, side = layers.chest, layers.canvas, finding.side
    v0, v1 = (0.0, 0.35) if finding.v < 0.35 else (0.35, 0.95)
    y = chest.apex + np.linspace(v0, v1, 24) * (chest.angle[side] - chest.apex)
    wave = 1 + 0.35 * np.interp(np.linspace(0, 1, 24), np.linspace(0, 1, 6), rng.normal(size=6))
    thick = (0.014 + 0.018 * finding.size) * wave * np.sin(np.pi * np.linspace(0.12, 0.88, 24)) ** 0.5
    wall = np.stack([chest.wall(side, y), y], axis=1)
    band = canvas.fill(ribbon(wall, np.maximum(thick, 0.003)))
    if v0 == 0.0:
        band = np.maximum(band, np.clip(1 - (canvas.y - chest.apex) / (0.022 + 0.02 * finding.size), 0, 1))
    band = canvas.blur(band, 0.002) * layers.lungs[side]
    layers.add_opacity(0.75 * band)
    layers.extra += 0.05 * band
    return band


def _fracture(finding: Finding, layers: Layers, rng: np.random.Generator) -> Map:
    canvas = layers.canvas
    ribs = [rib for rib in layers.chest.ribs if SIDES[finding.side] == SIDES[rib[0]] and 3 <= rib[1] <= 9]
    seen = canvas.blank()
    for _ in range(1 + int(2 * finding.size * rng.random() + 0.5)):
        _, _, back, _ = ribs[int(rng.integers(len(ribs)))]
        at = back[int(rng.integers(9, 14))]
        gap = canvas.fill(ellipse(at[0], at[1], 0.004, 0.016, tilt=0.5))
        callus = canvas.blur(canvas.fill(ellipse(at[0], at[1], 0.016, 0.018)), 0.004)
        layers.tissue += 0.15 * (0.4 + finding.size) * callus - 0.16 * gap
        seen = np.maximum(seen, canvas.fill(ellipse(at[0], at[1], 0.025, 0.025)))
    return seen


DRAWINGS: dict[str, Drawing] = {
    "cardiomegaly": _cardiomegaly,
    "enlarged_cardiomediastinum": _enlarged,
    "pleural_effusion": _effusion,
    "pneumothorax": _pneumothorax,
    "nodule": _nodule,
    "mass": _mass,
    "consolidation": _consolidation,
    "pneumonia": _pneumonia,
    "infiltration": _infiltration,
    "edema": _edema,
    "atelectasis": _atelectasis,
    "emphysema": _emphysema,
    "fibrosis": _fibrosis,
    "hernia": _hernia,
    "pleural_thickening": _thickening,
    "fracture": _fracture,
}
"""How each finding is drawn. Order of drawing: as listed here, so that a picture does not depend on a list's order."""
