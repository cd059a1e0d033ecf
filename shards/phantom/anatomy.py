"""What a patient is made of: numbers that stay the same in every image of the patient."""

from __future__ import annotations

import dataclasses

import numpy as np

SIDES = (-1, 1)
"""The patient's right lung lies on the image's left: side -1; the left lung is side +1."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Anatomy:
    """Lengths are fractions of the image's side unless said otherwise."""

    sex: str
    """M or F."""
    age: int
    """Years at the first image."""
    width: float
    """Half-width of the ribcage at its base."""
    apex: float
    """y of the top of the lungs."""
    base: float
    """y of the top of the right dome of the diaphragm on full inspiration."""
    dome: float
    """Height of the dome above the costophrenic angle."""
    left_drop: float
    """How much lower the left dome stands."""
    ctr: float
    """Cardiothoracic ratio of the healthy heart, PA."""
    heart_tilt: float
    """0 = upright, long heart; 1 = lying on the diaphragm."""
    knob: float
    """Radius of the aortic knob."""
    pedicle: float
    """Half-width of the upper mediastinum."""
    habitus: float
    """0 = slender, 1 = stout: thickness of the chest wall."""
    breast: float
    """Radius of the breast shadows; 0 = none."""
    bend: float
    """Sideways bend of the spine."""
    rib_slope: float
    """How far a posterior rib falls from spine to flank."""
    rib_width: float
    """Half-width of a rib."""
    rib_phase: float
    """Position of the first rib, in rib spacings."""
    clavicle: float
    """y of the collarbones' inner ends, below the apex."""
    bone: float
    """Mineral content: 1 = usual, lower = osteopenia."""
    vessel_seed: int
    """Seed of the vessel tree."""
    vessels: float
    """Strength of the vessel markings, 1 = usual."""
    gas: float
    """Radius of the gastric bubble."""
    implant_seed: int
    """Seed of what stays in the patient: pacemaker, wires, clips."""


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw a patient from `rng`."""
    sex = "F" if rng.random() < 0.45 else "M"
    age = int(np.clip(rng.normal(54, 17), 15, 92))
    old = (age - 50) / 40
    return Anatomy(
        sex=sex,
        age=age,
        width=float(np.clip(rng.normal(0.362, 0.017), 0.32, 0.40)),
        apex=float(np.clip(rng.normal(0.165, 0.018), 0.12, 0.21)),
        base=float(np.clip(rng.normal(0.715, 0.022), 0.66, 0.77)),
        dome=float(rng.uniform(0.075, 0.11)),
        left_drop=float(rng.uniform(0.0, 0.03)),
        ctr=float(np.clip(rng.normal(0.445 + 0.012 * old, 0.022), 0.39, 0.492)),
        heart_tilt=float(rng.uniform(0.2, 0.9)),
        knob=float(np.clip(0.036 + 0.006 * old + rng.normal(0, 0.003), 0.026, 0.05)),
        pedicle=float(np.clip(rng.normal(0.062, 0.005), 0.05, 0.078)),
        habitus=float(rng.beta(2, 3)),
        breast=float(rng.uniform(0.10, 0.17)) if sex == "F" else 0.0,
        bend=float(rng.normal(0, 0.008)),
        rib_slope=float(rng.uniform(0.07, 0.14)),
        rib_width=float(rng.uniform(0.0095, 0.0125)),
        rib_phase=float(rng.uniform(-0.3, 0.3)),
        clavicle=float(rng.uniform(0.07, 0.11)),
        bone=float(np.clip(1.1 - 0.2 * max(old, 0) + rng.normal(0, 0.1), 0.6, 1.3)),
        vessel_seed=int(rng.integers(2**31)),
        vessels=float(rng.uniform(0.8, 1.25)),
        gas=float(rng.uniform(0.0, 0.055)),
        implant_seed=int(rng.integers(2**31)),
    )
