"""Drawings of what happens around the lungs: heart, pleura, hiatus, ribs."""

from __future__ import annotations

import numpy as np

from .anatomy import SIDES
from .canvas import Map
from .curves import blob, ellipse, ribbon, spline
from .findings import Finding
from .layers import Layers


def cardiomegaly(finding: Finding, layers: Layers, rng: np.random.Generator) -> Map:
    """The heart as it was laid out; `reshape` has widened it."""
    return layers.canvas.fill(layers.chest.heart)


def wide_mediastinum(finding: Finding, layers: Layers, rng: np.random.Generator) -> Map:
    """The great vessels as they were laid out; `reshape` has widened them."""
    return layers.canvas.fill(layers.chest.great_vessels[0]) * (layers.canvas.y > layers.chest.apex)


def effusion(finding: Finding, layers: Layers, rng: np.random.Generator) -> Map:
    """Fluid at the base with a meniscus; lying down, a veil."""
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


def pneumothorax(finding: Finding, layers: Layers, rng: np.random.Generator) -> Map:
    """Air around a shrunken lung: the pleural line, no vessels beyond it."""
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


def hernia(finding: Finding, layers: Layers, rng: np.random.Generator) -> Map:
    """A stomach behind the heart, with a level of fluid."""
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


def thickening(finding: Finding, layers: Layers, rng: np.random.Generator) -> Map:
    """A band along the wall, or a cap at the apex."""
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


def fracture(finding: Finding, layers: Layers, rng: np.random.Generator) -> Map:
    """A gap in a rib, with callus around it."""
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
