"""What absorbs X-rays along each line of sight: the maps of a chest that findings and devices change.

The image is the projected attenuation: soft tissue and bone add to it, air in the lungs takes away from it.
Because lung, heart and disease share the same space, density goes where air was (air x (1 - heart) x (1 - disease)),
so that a consolidation beside the heart hides the heart's border, as it does in a real image (silhouette sign).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from .anatomy import SIDES
from .canvas import Canvas, Map
from .curves import ribbon
from .geometry import Chest
from .vessels import GENERATIONS, place, tree

AIR = 0.56
"""Attenuation that a full lung takes away from the chest; 1 is about what the abdomen absorbs."""
# Width of a branch and its strength by generation.
_WIDTHS = (0.0115, 0.0080, 0.0056, 0.0040, 0.0028, 0.0020)
_STRENGTHS = (0.26, 0.33, 0.34, 0.32, 0.27, 0.22)


@dataclasses.dataclass(kw_only=True)
class Layers:
    """Maps (H, W), float32."""

    chest: Chest
    canvas: Canvas
    lungs: list[Map]
    """Coverage of the right and left lung outline, 0..1."""
    air: Map
    """Share of lung air along the line of sight, 0..1, before disease."""
    opacity: Map
    """Share of that air which disease has replaced, 0..1."""
    vessels: Map
    """Vessel markings, 0..1."""
    tissue: Map
    """Soft tissue and bone: attenuation."""
    extra: Map
    """Further attenuation that air does not modulate (devices, pleural lines)."""

    def lung(self) -> Map:
        """Coverage of both lungs."""
        return np.maximum(self.lungs[0], self.lungs[1])

    def add_opacity(self, density: Map) -> None:
        """Fill lung with something dense: 1 replaces all of the air in the line of sight."""
        self.opacity = 1 - (1 - self.opacity) * (1 - np.clip(density, 0, 1))

    def attenuation(self) -> Map:
        """The projected attenuation, about 0 (room air) .. 1.2 (abdomen behind metal)."""
        air = self.air * (1 - self.opacity)
        return self.tissue - AIR * air + 0.30 * self.vessels * air + self.extra


def _smoothstep(x: Map) -> Map:
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def _soft_tissue(chest: Chest, canvas: Canvas) -> Map:
    """Trunk, neck, arms and breasts as rounded bodies."""
    a, top = chest.anatomy, chest.apex
    pad = 0.045 + 0.065 * a.habitus
    trunk, arms = [], []
    for side, s in enumerate(SIDES):
        y = np.array([top + 0.16, top + 0.3, top + 0.45, chest.angle[side], 1.2])
        x = chest.wall(side, y) + s * (pad + np.array([0.075, 0.035, 0.015, 0.015, 0.03]))
        trunk.append(np.stack([x, y], axis=1))
        shoulder = chest.middle + s * 0.47
        away = 0.0 if chest.pose.view == "AP" else 0.03
        arms.append(
            np.array(
                [
                    (shoulder - s * 0.08, top + 0.02),
                    (shoulder + s * 0.05, top + 0.03),
                    (shoulder + s * 0.12, top + 0.3),
                    (shoulder + s * 0.2, 1.2),
                    (shoulder + s * (0.0 + away), 1.2),
                    (shoulder - s * (0.035 - away), top + 0.42),
                    (shoulder - s * 0.06, top + 0.22),
                ]
            )
        )
    m = chest.middle
    upper = np.array(
        [
            (m + 0.43, top + 0.05),
            (m + 0.34, top - 0.03),
            (m + 0.20, top - 0.085),
            (m + 0.105, top - 0.13),
            (m + 0.09, top - 0.3),
        ]
    )
    upper = upper + np.array([[0.02 * a.habitus, -0.03 * a.habitus]])
    mirrored = upper[::-1] * np.array([-1, 1]) + np.array([2 * m, 0])
    outline = np.concatenate([trunk[0][::-1], mirrored[::-1], upper[::-1], trunk[1]])
    body = canvas.depth(canvas.fill(outline), 0.17)
    limbs = 0.62 * canvas.depth(canvas.fill(*arms), 0.08)
    tissue = (0.80 + 0.12 * a.habitus) * np.maximum(body, limbs)
    # The neck and shoulders are thinner than the chest; the abdomen is thicker.
    above = _smoothstep((np.float32(top + 0.03) - canvas.y) / 0.2)
    tissue *= 1 - 0.22 * above
    below = _smoothstep((canvas.y - np.float32(min(chest.base) - 0.03)) / 0.22)
    tissue += 0.16 * below * body
    if a.breast:
        for side, s in enumerate(SIDES):
            cx = chest.middle + s * (0.19 + 0.02 * a.habitus)
            cy = chest.base[side] - 0.085 + 0.03 * (a.age - 50) / 40
            rx, ry = a.breast * (1 + 0.25 * a.habitus), a.breast * (0.95 + 0.2 * a.habitus)
            r2 = ((canvas.x - cx) / rx) ** 2 + ((canvas.y - cy) / ry) ** 2
            lower = 0.35 + 0.65 * _smoothstep((canvas.y - (cy - 0.6 * ry)) / (1.2 * ry))
            tissue += (0.115 + 0.06 * a.habitus) * np.clip(1 - r2, 0, 1) ** 0.4 * lower * (body > 0)
    return tissue


def _bones(chest: Chest, canvas: Canvas) -> Map:
    """Ribs, collarbones, shoulder blades, spine: attenuation."""
    a = chest.anatomy
    # Eleven ribs of the right side, then of the left; the first is narrower, of the last four no front is drawn.
    number = np.array([rib[1] for rib in chest.ribs])
    half = a.rib_width * np.where(number > 1, 1, 0.8)[:, None]
    rear, fore = np.stack([rib[2] for rib in chest.ribs]), np.stack([rib[3] for rib in chest.ribs])[number <= 7]
    back = ribbon(rear, half * np.interp(np.linspace(0, 1, rear.shape[1]), [0, 0.3, 1], [0.8, 1.0, 0.3]))
    taper = np.interp(np.linspace(0, 1, fore.shape[1]), [0, 0.25, 1], [0.45, 0.95, 1.35])
    front = ribbon(fore, half[number <= 7] * taper)
    bone = 0.072 * canvas.fill(*back[::2]) + 0.072 * canvas.fill(*back[1::2])
    bone += 0.036 * canvas.fill(*front)
    bone += 0.05 * canvas.stroke(back, 0.0026, closed=True) + 0.026 * canvas.stroke(front, 0.0028, closed=True)
    collar = canvas.fill(*chest.clavicles)
    bone += 0.075 * collar + 0.05 * canvas.stroke(chest.clavicles, 0.004, closed=True)
    bone += 0.05 * canvas.fill(*chest.scapulae) + 0.045 * canvas.stroke(chest.scapulae, 0.005, closed=True)
    heads = [np.array([[chest.middle + s * 0.43, chest.apex + 0.02]]) for s in SIDES]
    for head in heads:
        r2 = ((canvas.x - head[0, 0]) ** 2 + (canvas.y - head[0, 1]) ** 2) / 0.055**2
        bone += 0.09 * np.sqrt(np.clip(1 - r2, 0, 1))
    spine = 0.045 * canvas.fill(*chest.vertebrae) + 0.035 * canvas.stroke(chest.vertebrae, 0.004, closed=True)
    y = np.linspace(-0.1, 1.1, 10)
    column = np.stack([chest.spine_x(y), y], axis=1)
    spine += 0.05 * canvas.blur(canvas.fill(ribbon(column, 0.042)), 0.006)
    y = np.linspace(chest.apex + 0.06, 0.95, 20)
    flank = [np.stack([chest.wall(side, y) + s * 0.011, y], axis=1) for side, s in enumerate(SIDES)]
    bone += 0.04 * canvas.blur(canvas.stroke(flank, 0.015), 0.004)
    # Scatter from the thick abdomen washes the lower ribs out.
    bone *= 1 - 0.55 * _smoothstep((canvas.y - np.float32(min(chest.base))) / 0.15)
    return canvas.blur((bone + spine) * np.float32(a.bone), 0.0016)


def _air(chest: Chest, canvas: Canvas, lungs: list[Map]) -> Map:
    """Air in the line of sight: full in the lungs, none in the heart and the great vessels."""
    # The lung thins towards the ribs but not towards the dome of the diaphragm, which is seen edge-on: there the
    # rounded profile is that of the chest cavity, cut off by the lung's outline.
    air = np.maximum(
        *(canvas.depth(canvas.fill(*cavity), 0.115) for cavity in zip(chest.lungs, chest.cavities, strict=True))
    )
    air = np.minimum(air, np.maximum(*lungs))
    air *= 1 + 0.25 * chest.shape.inflate
    heart = canvas.depth(canvas.fill(chest.heart), 0.05)
    centre = np.maximum.reduce([canvas.depth(canvas.fill(outline), 0.03) for outline in chest.great_vessels[:3]])
    aorta = 0.45 * canvas.fill(chest.great_vessels[3])
    hidden = np.maximum(np.maximum(0.86 * heart, 0.94 * centre), aorta)
    return air * (1 - canvas.blur(hidden, 0.003))


def _vessels(chest: Chest, canvas: Canvas) -> Map:
    """Vessel markings of both lungs."""
    groups = []
    for side, s in enumerate(SIDES):
        hilum = chest.hila[side]
        levels = tree(chest.anatomy.vessel_seed + side)
        reach = (
            abs(float(chest.wall(side, hilum[1])) - hilum[0]) * 0.98,
            (hilum[1] - chest.apex) * 0.98,
            (chest.base[side] + 0.03 - hilum[1]) * 1.02,
        )
        for generation in range(GENERATIONS):
            lines, upward = levels[generation]
            placed = place(lines, hilum, reach, s)
            wide = _WIDTHS[generation] * chest.anatomy.vessels * (1 - 0.35 * chest.shape.inflate)
            upper = 0.72 + 0.75 * chest.shape.cephalise
            strength = _STRENGTHS[generation] * (1 - 0.4 * chest.shape.inflate)
            groups.append((placed[~upward], wide, strength))
            groups.append((placed[upward], wide * upper, strength))
    groups.sort(key=lambda group: group[1])
    hila = canvas.blank()
    for side, s in enumerate(SIDES):
        x, y = chest.hila[side]
        r2 = ((canvas.x - (x - s * 0.012)) / 0.055) ** 2 + ((canvas.y - y) / 0.09) ** 2
        hila += 1.0 * np.exp(-1.4 * r2)
    return canvas.blur(canvas.strokes(groups), 0.0013) + hila


def compose(chest: Chest, canvas: Canvas, rng: np.random.Generator) -> Layers:
    """All maps of a chest without findings inside the lung; `rng` gives the fine texture."""
    lungs = [canvas.fill(outline) for outline in chest.lungs]
    heart = canvas.depth(canvas.fill(chest.heart), 0.06)
    tissue = _soft_tissue(chest, canvas) + _bones(chest, canvas) * (1 - 0.5 * heart) + 0.05 * heart
    tracks = canvas.blank()
    for line, width in chest.airways:
        tracks = np.maximum(tracks, canvas.fill(ribbon(line, width / 2)))
    tissue -= 0.11 * canvas.blur(tracks, 0.004)
    a = chest.anatomy
    if a.gas > 0.015:
        x, y = chest.at(1, 0.42, 1.0)
        y += 0.03 + a.gas * 0.7
        r2 = ((canvas.x - x) / (a.gas * 1.5)) ** 2 + ((canvas.y - y) / a.gas) ** 2
        tissue -= 0.22 * np.sqrt(np.clip(1 - r2, 0, 1))
    air = _air(chest, canvas, lungs)
    texture = canvas.texture(rng, 0.03, 3)
    air *= 1 - 0.025 * texture
    tissue += 0.010 * canvas.texture(rng, 0.25, 3) * (tissue > 0.1)
    return Layers(
        chest=chest,
        canvas=canvas,
        lungs=lungs,
        air=air,
        opacity=canvas.blank(),
        vessels=_vessels(chest, canvas),
        tissue=tissue,
        extra=canvas.blank(),
    )
