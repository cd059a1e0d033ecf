"""Drawings of what happens inside the lungs: opacities, collapse, meshes, bullae."""

from __future__ import annotations

import dataclasses

import numpy as np

from .anatomy import SIDES
from .canvas import Map
from .curves import Points, blob, ellipse, ribbon
from .findings import Finding
from .layers import Layers


def _patch(layers: Layers, rng: np.random.Generator, outline: Points, soft: float, grain: float) -> Map:
    """A cloudy patch inside the lungs: soft-edged outline broken up by a random field."""
    canvas = layers.canvas
    body = canvas.blur(canvas.fill(outline), soft)
    cloud = canvas.texture(rng, grain, 3)
    return np.clip(body * (1 + 0.45 * cloud * (1.2 - body)), 0, 1) * layers.lung()


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


def nodule(finding: Finding, layers: Layers, rng: np.random.Generator) -> Map:
    """One round spot, sometimes two or three."""
    body: Map = layers.canvas.blank()
    for extra in range(1 + int(rng.random() < 0.25) + int(rng.random() < 0.15)):
        place = (
            finding if extra == 0 else dataclasses.replace(finding, u=rng.uniform(0.2, 0.8), v=rng.uniform(0.2, 0.8))
        )
        spot = _round(place, layers, rng, 0.015 + 0.022 * finding.size, 0.07, 0.42 + 0.28 * finding.size)
        body = np.maximum(body, spot)
    return body


def mass(finding: Finding, layers: Layers, rng: np.random.Generator) -> Map:
    """A large round lesion, lobed or with a spiculated rim."""
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


def consolidation(finding: Finding, layers: Layers, rng: np.random.Generator) -> Map:
    """A dense patch with open bronchi, sometimes cut off by a fissure."""
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


def pneumonia(finding: Finding, layers: Layers, rng: np.random.Generator) -> Map:
    """Several foci that run together, with a halo."""
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


def infiltration(finding: Finding, layers: Layers, rng: np.random.Generator) -> Map:
    """Faint streaks on one side or both."""
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


def edema(finding: Finding, layers: Layers, rng: np.random.Generator) -> Map:
    """Haze around the hila like wings, blurred vessels, and Kerley B lines at the wall."""
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


def atelectasis(finding: Finding, layers: Layers, rng: np.random.Generator) -> Map:
    """Plates across the base, or a collapsed lower lobe as a wedge behind the heart."""
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


def emphysema(finding: Finding, layers: Layers, rng: np.random.Generator) -> Map:
    """Fewer vessels, and bullae."""
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


def fibrosis(finding: Finding, layers: Layers, rng: np.random.Generator) -> Map:
    """A mesh at the apices or the bases."""
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
