"""Outlines of one chest in one pose: lungs, ribs, heart, airways, vessels, all in unit coordinates.

Legend: index 0 is the right lung (image's left), 1 the left lung; s is -1 or +1 accordingly.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .anatomy import SIDES, Anatomy
from .curves import Points, ellipse, ribbon, spline
from .pose import Pose, Shape

# Half-width of the ribcage against depth t (0 = apex, 1 = costophrenic angle), as a share of the base's.
_WALL_T = np.array([0.0, 0.03, 0.08, 0.15, 0.25, 0.4, 0.55, 0.7, 0.85, 1.0])
_WALL_W = np.array([0.40, 0.52, 0.61, 0.70, 0.80, 0.895, 0.95, 0.985, 1.0, 0.985])


@dataclasses.dataclass(kw_only=True)
class Chest:
    """Everything that is drawn of one patient in one pose."""

    anatomy: Anatomy
    pose: Pose
    shape: Shape
    middle: float
    """x of the spine at mid-height."""
    centre: float
    """x of the mediastinum (differs from `middle` when the patient is turned or the heart is pushed aside)."""
    apex: float
    """y of the top of the lungs."""
    base: list[float]
    """y of the top of the right and left dome."""
    angle: list[float]
    """y of the right and left costophrenic angle."""
    half_width: list[float]
    """Half-width of the ribcage at the base, right and left."""
    ctr: float
    """Cardiothoracic ratio as drawn."""

    def spine_x(self, y: ArrayLike) -> NDArray[np.float64]:
        """X of the spine's middle at height y."""
        return self.middle + self.anatomy.bend * np.sin(np.pi * (np.asarray(y, dtype=float) - 0.1))

    def wall(self, side: int, y: ArrayLike) -> NDArray[np.float64]:
        """X of the inner chest wall on a side (0 right, 1 left) at height y."""
        t = (np.asarray(y, dtype=float) - self.apex) / (self.angle[side] - self.apex)
        return self.middle + SIDES[side] * self.half_width[side] * np.interp(t, _WALL_T, _WALL_W)

    def dome(self, side: int, u: ArrayLike) -> NDArray[np.float64]:
        """Y of the diaphragm at u = 0 (spine) .. 1 (chest wall)."""
        u = np.asarray(u, dtype=float)
        arch = 1 - np.abs((u - 0.42) / 0.58) ** 2.3
        return self.angle[side] - (self.angle[side] - self.base[side]) * arch

    def at(self, side: int, u: ArrayLike, v: ArrayLike) -> Points:
        """Unit coordinates of a place in a lung: u 0 = mediastinum .. 1 = wall, v 0 = apex .. 1 = diaphragm."""
        u, v = np.asarray(u, dtype=float), np.asarray(v, dtype=float)
        y = self.apex + v * (self.dome(side, u) - self.apex)
        inner = self.centre + SIDES[side] * 0.03
        return np.stack([inner + u * (self.wall(side, y) - inner), y], axis=-1)

    @functools.cached_property
    def lungs(self) -> list[Points]:
        """Outlines of the aerated lungs, right and left, reaching under the heart to the midline."""
        outlines = []
        for side, s in enumerate(SIDES):
            t = np.concatenate([np.linspace(0, 0.1, 8), np.linspace(0.14, 1.0, 18)])
            y = self.apex + t * (self.angle[side] - self.apex)
            outer = np.stack([self.wall(side, y), y], axis=1)
            u = np.linspace(1, 0, 20)[1:]
            x = self.centre + u * (outer[-1, 0] - self.centre)
            floor = np.stack([x, self.dome(side, u)], axis=1)
            width = self.half_width[side]
            top = np.array([[0.02, 0.2], [0.035, 0.09], [0.10, 0.03], [0.17, 0.008], [0.28, -0.004]])
            inner = np.stack([self.centre + s * width * top[:, 0] / 0.8, self.apex + top[:, 1]], axis=1)
            outlines.append(np.concatenate([outer, floor, inner]))
        return outlines

    @functools.cached_property
    def cavities(self) -> list[Points]:
        """The room below each dome, between spine and ribs."""
        rooms = []
        for side in range(2):
            y = np.array([self.base[side] - 0.02, self.angle[side], 1.3])
            outer = np.stack([self.wall(side, y), y], axis=1)
            rooms.append(np.concatenate([outer, [(self.centre, 1.3), (self.centre, y[0])]]))
        return rooms

    @functools.cached_property
    def heart(self) -> Points:
        """Outline of the heart."""
        a = self.anatomy
        width = self.ctr * (self.half_width[0] + self.half_width[1])
        tilt = a.heart_tilt
        right, left = width * (0.36 - 0.05 * tilt), width * (0.64 + 0.05 * tilt)
        floor = max(self.base) + 0.02
        top = floor - 0.20 - 0.38 * width - 0.05 * (1 - tilt)
        tall = floor - top
        x, y = self.centre, np.array([0.0, 0.28, 0.55, 0.78, 0.97, 1.12])
        rx = np.array([0.16, 0.45, 0.93, 1.0, 0.78, 0.2]) * right
        ry = top + y * tall
        ly = top + np.array([0.0, 0.2, 0.42, 0.62, 0.80, 0.95, 1.08]) * tall
        lx = np.array([0.17, 0.36, 0.58, 0.82, 0.99, 0.95, 0.5]) * left
        outline = np.concatenate([np.stack([x - rx, ry], axis=1), np.stack([x + lx, ly], axis=1)[::-1]])
        return spline(outline, closed=True, per_segment=4)

    @functools.cached_property
    def great_vessels(self) -> list[Points]:
        """Superior mediastinum, aortic knob, descending aorta and pulmonary trunk."""
        a, x, top = self.anatomy, self.centre, self.apex
        half = a.pedicle + self.shape.pedicle
        heart_top = float(self.heart[:, 1].min())
        pedicle = spline(
            [
                (x - half * 0.85, top - 0.2),
                (x - half * 0.9, top),
                (x - half * 0.85, top + 0.1),
                (x - half * 0.95, heart_top + 0.02),
                (x - half, heart_top + 0.12),
                (x + half * 0.9, heart_top + 0.12),
                (x + half * 0.8, heart_top),
                (x + half * 0.95, top + 0.1),
                (x + half * 0.95, top),
                (x + half * 0.85, top - 0.2),
            ],
            closed=True,
            per_segment=4,
        )
        radius = a.knob + 0.4 * self.shape.pedicle
        knob_y = heart_top - 0.02
        knob = ellipse(x + half * 0.72, knob_y, radius * 1.05, radius * 1.1)
        trunk = ellipse(x + half * 0.85, knob_y + 0.085, 0.034, 0.05, tilt=-0.5)
        y = np.linspace(knob_y, max(self.base) + 0.1, 12)
        aorta = ribbon(np.stack([self.spine_x(y) + 0.045 - 0.02 * (y - knob_y) / 0.5, y], axis=1), 0.02)
        return [pedicle, knob, trunk, aorta]

    @functools.cached_property
    def hila(self) -> Points:
        """Roots of the right and left lung, (2, 2)."""
        y = self.apex + 0.46 * (self.base[0] - self.apex)
        return np.array([[self.centre - 0.075, y + 0.012], [self.centre + 0.08, y - 0.015]])

    @functools.cached_property
    def airways(self) -> list[tuple[Points, float]]:
        """Trachea and main bronchi: centre line and width."""
        x, carina = self.centre, float(self.hila[:, 1].mean()) - 0.075
        trachea = spline([(self.middle, self.apex - 0.25), (self.middle, self.apex), (x, carina)], per_segment=6)
        right = spline([(x, carina - 0.01), (x - 0.03, carina + 0.035), (x - 0.055, carina + 0.08)], per_segment=4)
        left = spline([(x, carina - 0.01), (x + 0.04, carina + 0.03), (x + 0.085, carina + 0.055)], per_segment=4)
        return [(trachea, 0.036), (right, 0.026), (left, 0.023)]

    @functools.cached_property
    def ribs(self) -> list[tuple[int, int, Points, Points]]:
        """Each rib as (side, number, centre line of the posterior part, centre line of the anterior part)."""
        a, found = self.anatomy, []
        pitch = (0.74 - a.apex) / 9.2
        number = np.arange(1, 12)[:, None]
        y0 = a.apex + (number - 0.75 + 0.3 * a.rib_phase) * pitch + np.where(number == 1, 0.02, 0)
        fall = a.rib_slope * np.clip(0.35 + 0.16 * number, 0, 1.1)
        end_y = y0 + fall
        u, v = np.linspace(0, 1, 16), np.linspace(0, 1, 12)
        # The neck rises, the shaft falls ever more steeply towards the flank.
        y = y0 - 0.035 * np.sin(np.pi * np.minimum(u * 1.25, 1)) + fall * u**2.2
        front_y = end_y + (0.05 + 0.012 * np.minimum(number, 6)) * (1.15 * v) ** 1.3 + 0.004
        for side, s in enumerate(SIDES):
            wall = self.wall(side, np.maximum(end_y, self.apex + 0.02)) + s * 0.012
            root = self.spine_x(y0) + s * 0.028
            x = root + (wall - root) * np.sin(u * np.pi / 2 * 0.98) ** 0.92
            reach = 0.62 - 0.03 * number
            front_x = wall + (self.middle + s * 0.05 - wall) * reach * np.sin(v * np.pi / 2)
            backs, fronts = np.stack([x, y], axis=-1), np.stack([front_x, front_y], axis=-1)
            found += [(side, i + 1, back, front) for i, (back, front) in enumerate(zip(backs, fronts, strict=True))]
        return found

    @functools.cached_property
    def clavicles(self) -> list[Points]:
        """Outlines of the collarbones."""
        lift = 0.035 if self.pose.view == "AP" else 0.0
        y0 = self.apex + self.anatomy.clavicle - lift
        outlines = []
        for s in SIDES:
            x0 = self.centre + s * 0.035
            line = spline(
                [
                    (x0, y0),
                    (x0 + s * 0.08, y0 - 0.012),
                    (x0 + s * 0.17, y0 - 0.045 - lift * 0.5),
                    (x0 + s * 0.27, y0 - 0.085 - lift * 0.5),
                    (x0 + s * 0.36, y0 - 0.085 - lift * 0.5),
                ]
            )
            half = np.interp(np.linspace(0, 1, len(line)), [0, 0.12, 0.5, 1], [0.019, 0.0125, 0.011, 0.014])
            outlines.append(ribbon(line, half))
        return outlines

    @functools.cached_property
    def scapulae(self) -> list[Points]:
        """Outlines of the shoulder blades: over the lungs in AP, clear of them in PA."""
        inward = 0.055 if self.pose.view == "AP" else -0.015
        outlines = []
        for side, s in enumerate(SIDES):
            edge = float(self.wall(side, self.apex + 0.2)) - s * inward
            y = self.apex
            outlines.append(
                spline(
                    [
                        (edge, y + 0.02),
                        (edge + s * 0.005, y + 0.16),
                        (edge + s * 0.03, y + 0.33),
                        (edge + s * 0.06, y + 0.27),
                        (edge + s * 0.11, y + 0.1),
                        (edge + s * 0.15, y + 0.02),
                        (edge + s * 0.08, y - 0.03),
                    ],
                    closed=True,
                    per_segment=4,
                )
            )
        return outlines

    @functools.cached_property
    def vertebrae(self) -> list[Points]:
        """Outlines of the vertebral bodies."""
        bodies = []
        for y in np.arange(0.0, 1.08, 0.062):
            x, half = float(self.spine_x(y)), 0.026 + 0.012 * y
            bodies.append(
                np.array(
                    [
                        (x - half, y),
                        (x + half, y),
                        (x + half * 0.94, y + 0.026),
                        (x + half, y + 0.052),
                        (x - half, y + 0.052),
                        (x - half * 0.94, y + 0.026),
                    ]
                )
            )
        return bodies


def build(anatomy: Anatomy, pose: Pose, shape: Shape) -> Chest:
    """Lay out a chest: anatomy (patient) + pose (exposure) + shape (disease)."""
    flat = 0.55 * shape.inflate
    base, angle = [], []
    for side in range(2):
        y = anatomy.base - pose.inspiration + 0.055 * shape.inflate + (anatomy.left_drop if side else 0)
        y -= shape.lift[side]
        base.append(y)
        angle.append(y + anatomy.dome * (1 - flat) * (1 - 2.0 * max(shape.lift[side] - 0.03, 0)))
    middle = 0.5
    ap = pose.view == "AP"
    # A bed-side image magnifies the heart (it lies in front, far from the film) by about a tenth.
    ctr = (anatomy.ctr + shape.heart) * (1.07 if ap else 1.0) * (1 + 0.8 * pose.inspiration) - 0.05 * shape.inflate
    return Chest(
        anatomy=anatomy,
        pose=pose,
        shape=shape,
        middle=middle,
        centre=middle + pose.twist + shape.shift,
        apex=anatomy.apex - 0.01 * shape.inflate,
        base=base,
        angle=angle,
        half_width=[anatomy.width * (1 - 0.5 * pose.twist), anatomy.width * (1 + 0.5 * pose.twist)],
        ctr=float(ctr),
    )
