"""What the published tables say about a case: missed findings, invented ones, uncertainty, blanks."""

from __future__ import annotations

import numpy as np

from .. import labels as names
from .case import Case, Style

BOX_NAMES = names.NIH_SPELLING | {"infiltration": "Infiltrate"}
"""NIH's spelling in BBox_List_2017.csv."""
CHEXPERT_NAMES = {name: name.replace("_", " ").title() for name in ("no_finding", *names.CHEXPERT)}
"""CheXpert's columns, in the order of train.csv."""
_OPAQUE = ("infiltration", "consolidation", "pneumonia", "edema", "atelectasis", "nodule", "mass")
# Share of reports that say in so many words that a finding is absent.
_DENIED = {
    "pneumothorax": 0.30, "pleural_effusion": 0.16, "edema": 0.10, "consolidation": 0.14, "cardiomegaly": 0.06,
    "pneumonia": 0.02, "enlarged_cardiomediastinum": 0.09, "lung_opacity": 0.03, "fracture": 0.02,
    "support_devices": 0.03, "lung_lesion": 0.01, "atelectasis": 0.01,
}  # fmt: skip


def _report_rng(case: Case) -> np.random.Generator:
    return np.random.default_rng([case.texture_seed, 77])


def truth(case: Case) -> dict[str, float]:
    """What is really in the image: canonical name -> size 0..1."""
    return {finding.name: finding.size for finding in case.findings}


def _reported(case: Case, style: Style, rng: np.random.Generator) -> dict[str, float]:
    """The truth with errors: small findings are missed twice as often as average ones, and some are invented."""
    sizes = truth(case)
    reported = {}
    for name in style.prevalence:
        miss, lie = rng.random(2)
        if name in sizes:
            if miss >= style.missed * 2 * (1 - sizes[name]):
                reported[name] = sizes[name]
        elif lie < style.invented:
            reported[name] = 0.0
    return reported


def nih_label(case: Case, style: Style) -> str:
    """The `Finding Labels` field: names joined with |, or No Finding."""
    reported = _reported(case, style, _report_rng(case))
    return "|".join(sorted(names.NIH_SPELLING[name] for name in reported)) or "No Finding"


def chexpert_labels(case: Case, style: Style, *, expert: bool) -> dict[str, float | None]:
    """One row's labels: 1.0, 0.0, -1.0 or None (not mentioned).

    `expert` gives the values of valid.csv instead: the truth, neither uncertain nor blank.
    """
    rng = _report_rng(case)
    sizes = truth(case) if expert else _reported(case, style, rng)
    sizes = dict(sizes)
    if case.devices:
        sizes["support_devices"] = 1.0
    lesion = max(sizes.get("nodule", -1.0), sizes.get("mass", -1.0))
    opaque = max((sizes.get(name, -1.0) for name in _OPAQUE), default=-1.0)
    if lesion >= 0:
        sizes["lung_lesion"] = lesion
    if opaque >= 0 and (expert or rng.random() < 0.75):
        sizes["lung_opacity"] = opaque
    if "pleural_thickening" in sizes:
        sizes["pleural_other"] = sizes["pleural_thickening"]
    row: dict[str, float | None] = {}
    for name in CHEXPERT_NAMES:
        doubt, denial = rng.random(2)
        if name in sizes:
            unsure = name != "support_devices" and doubt < style.uncertain * (1.6 - 1.2 * sizes[name])
            row[name] = 1.0 if expert or not unsure else -1.0
        elif expert:
            row[name] = 0.0
        elif doubt < 0.02 and name in ("atelectasis", "pneumonia", "consolidation", "edema", "cardiomegaly"):
            row[name] = -1.0
        else:
            row[name] = 0.0 if denial < _DENIED.get(name, 0.0) else None
    clean = not any(
        row[name] in (1.0, -1.0) for name in CHEXPERT_NAMES if name not in ("no_finding", "support_devices")
    )
    row["no_finding"] = 1.0 if clean and (expert or rng.random() < 0.9) else (0.0 if expert else None)
    return row
