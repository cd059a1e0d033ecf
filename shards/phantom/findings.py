"""The findings: where each sits, how large it is, and how it changes the outlines of the chest.

A finding has two moments: `reshape` changes outlines (a wide heart, a raised diaphragm) before the chest is laid
out; its drawing (`shards.phantom.drawings`) changes the maps afterwards and returns where it can be seen.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from .anatomy import SIDES
from .pose import Shape


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """One finding in one image."""

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
    """Seed of its details; the same in the next image of a finding that persists."""

    def rng(self) -> np.random.Generator:
        """A fresh generator for the details."""
        return np.random.default_rng(self.seed)


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
