"""Who has what: patients, their findings over time, and what the labels say about them.

Two publishers are imitated. Their hospitals differ (share of bed-side images, devices, prevalence) and so do
their labels: NIH lists positives only; CheXpert says 1, 0, -1 (uncertain) or nothing.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from .anatomy import Anatomy, draw_anatomy
from .findings import Finding
from .pose import Pose, draw_pose


@dataclasses.dataclass(frozen=True, kw_only=True)
class Style:
    """One publisher's hospital, camera and labelling."""

    name: str
    """nih or chexpert."""
    ap_share: float
    """Share of AP images."""
    prevalence: dict[str, float]
    """Probability of each finding in an image, before the patient's illness is taken into account."""
    devices: float
    """Probability of each temporary device in a bed-side image."""
    missed: float
    """Share of findings that the label does not mention; small ones are missed more often."""
    invented: float
    """Probability that a label claims a finding that is not there."""
    uncertain: float
    """Share of positives that the label calls uncertain (CheXpert only)."""
    equalise: float
    """Strength of histogram equalisation, 0..1 (CheXpert's published JPEGs are equalised)."""
    images_mean: float
    """Mean number of images per patient."""


NIH = Style(
    name="nih",
    ap_share=0.40,
    prevalence={
        "atelectasis": 0.13, "cardiomegaly": 0.11, "consolidation": 0.09, "edema": 0.08, "pleural_effusion": 0.14,
        "emphysema": 0.05, "fibrosis": 0.05, "hernia": 0.02, "infiltration": 0.12, "mass": 0.07, "nodule": 0.08,
        "pleural_thickening": 0.05, "pneumonia": 0.08, "pneumothorax": 0.09,
    },
    devices=0.13,
    missed=0.07,
    invented=0.012,
    uncertain=0.0,
    equalise=0.0,
    images_mean=2.6,
)  # fmt: skip
CHEXPERT = Style(
    name="chexpert",
    ap_share=0.82,
    prevalence={
        "atelectasis": 0.16, "cardiomegaly": 0.14, "consolidation": 0.10, "edema": 0.16, "pleural_effusion": 0.24,
        "enlarged_cardiomediastinum": 0.07, "nodule": 0.04, "mass": 0.04, "infiltration": 0.10, "fracture": 0.05,
        "pleural_thickening": 0.03, "pneumonia": 0.09, "pneumothorax": 0.11,
    },
    devices=0.22,
    missed=0.06,
    invented=0.010,
    uncertain=0.12,
    equalise=0.85,
    images_mean=2.6,
)  # fmt: skip
STYLES = {"nih": NIH, "chexpert": CHEXPERT}

CHRONIC = frozenset(
    ["cardiomegaly", "emphysema", "fibrosis", "hernia", "mass", "nodule", "pleural_thickening",
     "enlarged_cardiomediastinum"]
)  # fmt: skip
"""Findings that persist from image to image, at the same place."""

# Illnesses that bring findings together: odds of each finding are multiplied in patients who have them.
_ILLNESSES: tuple[tuple[float, dict[str, float]], ...] = (
    (0.14, {"cardiomegaly": 4.0, "edema": 4.0, "pleural_effusion": 2.2}),
    (0.14, {"pneumonia": 3.5, "consolidation": 3.0, "pleural_effusion": 1.6, "infiltration": 2.0}),
    (0.08, {"emphysema": 5.0, "pneumothorax": 2.5, "nodule": 1.5}),
    (0.08, {"mass": 4.0, "nodule": 3.0, "atelectasis": 1.8, "pleural_effusion": 1.6}),
)
_TEMPORARY = ("leads", "endotracheal", "gastric", "line")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One image before it is drawn."""

    patient: int
    """1, 2, ..."""
    number: int
    """0, 1, ... within the patient."""
    anatomy: Anatomy
    pose: Pose
    age: int
    """Years at this image."""
    findings: tuple[Finding, ...]
    devices: tuple[tuple[str, int], ...]
    """(name, seed of its details)"""
    texture_seed: int
    """Seed of grain and noise."""


def _rng(*words: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))


def _style_code(style: Style) -> int:
    return {"nih": 1, "chexpert": 2}[style.name]


def _draw_finding(name: str, rng: np.random.Generator) -> Finding:
    return Finding(
        name=name,
        size=float(rng.beta(1.3, 1.7)),
        side=int(rng.random() < 0.47),
        u=float(rng.random()),
        v=float(rng.random()),
        seed=int(rng.integers(2**31)),
    )


def _odds(style: Style, rng: np.random.Generator) -> dict[str, float]:
    """Probability of each finding for one patient: the hospital's, raised or lowered by the patient's illnesses."""
    odds = {name: p / (1 - p) for name, p in style.prevalence.items()}
    healthy = True
    for share, raised in _ILLNESSES:
        ill = rng.random() < share
        healthy &= not ill
        for name, factor in raised.items():
            if name in odds and ill:
                odds[name] *= factor
    scale = 0.55 if healthy else 1.0
    return {name: o * scale / (1 + o * scale) for name, o in odds.items()}


def patient_cases(style: Style, seed: int, patient: int) -> list[Case]:
    """All images of a patient, in order of time; a function of (style, seed, patient) alone."""
    rng = _rng(seed, _style_code(style), patient)
    anatomy = draw_anatomy(rng)
    share = _odds(style, rng)
    count = 1 + int(min(rng.geometric(1 / style.images_mean) - 1, 11))
    chronic = {n: _draw_finding(n, rng) for n in style.prevalence if n in CHRONIC and rng.random() < share[n]}
    onset = {name: int(rng.integers(0, count)) if rng.random() < 0.3 else 0 for name in chronic}
    implants = [
        (name, anatomy.implant_seed + i)
        for i, (name, p) in enumerate((("pacemaker", 0.05), ("sternotomy", 0.07), ("clips", 0.03)))
        if rng.random() < p * (2 if style.name == "chexpert" else 1)
    ]
    cases, age = [], float(anatomy.age)
    for number in range(count):
        own = _rng(seed, _style_code(style), patient, number + 1)
        pose = draw_pose(own, ap_share=style.ap_share)
        found = [f for name, f in chronic.items() if number >= onset[name]]
        found += [_draw_finding(n, own) for n in style.prevalence if n not in CHRONIC and own.random() < share[n]]
        devices = list(implants)
        if pose.view == "AP":
            devices += [(n, int(own.integers(2**31))) for n in _TEMPORARY if own.random() < style.devices]
        elif own.random() < 0.05:
            devices.append(("line", int(own.integers(2**31))))
        air = next((f for f in found if f.name == "pneumothorax"), None)
        if own.random() < (0.30 if air else 0.02):  # a drain is a common, treacherous companion of a pneumothorax
            devices.append(
                ("drain_left" if (air.side if air else own.integers(2)) else "drain_right", int(own.integers(2**31)))
            )
        cases.append(
            Case(
                patient=patient,
                number=number,
                anatomy=anatomy,
                pose=pose,
                age=int(age),
                findings=tuple(found),
                devices=tuple(devices),
                texture_seed=int(own.integers(2**31)),
            )
        )
        age += float(own.exponential(0.6))
    return cases
