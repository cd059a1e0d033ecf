"""One vocabulary of findings for every dataset, and what to do with "uncertain" and "not mentioned".

Values, in the index and in memory (int8): 1 positive, 0 negative, -1 uncertain; not mentioned is null in Parquet and
NULL (-128) in memory. Legend of shapes: N samples, L labels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from shards.errors import InputError

POSITIVE = np.int8(1)
NEGATIVE = np.int8(0)
UNCERTAIN = np.int8(-1)
NULL = np.int8(-128)

NIH_SPELLING = {
    "atelectasis": "Atelectasis",
    "cardiomegaly": "Cardiomegaly",
    "pleural_effusion": "Effusion",
    "infiltration": "Infiltration",
    "mass": "Mass",
    "nodule": "Nodule",
    "pneumonia": "Pneumonia",
    "pneumothorax": "Pneumothorax",
    "consolidation": "Consolidation",
    "edema": "Edema",
    "emphysema": "Emphysema",
    "fibrosis": "Fibrosis",
    "pleural_thickening": "Pleural_Thickening",
    "hernia": "Hernia",
}
"""The 14 findings of NIH ChestX-ray14 (Wang et al., CVPR 2017) as its table spells them, in the order of the paper,
which is also that of ChestMNIST's columns."""

NIH = tuple(sorted(NIH_SPELLING))
"""Their canonical names, alphabetical."""

NIH_BOXED = tuple(NIH_SPELLING)[:8]
"""The findings that NIH publishes boxes for: the eight that the dataset began with."""

CHEXPERT = (
    "enlarged_cardiomediastinum",
    "cardiomegaly",
    "lung_opacity",
    "lung_lesion",
    "edema",
    "consolidation",
    "pneumonia",
    "atelectasis",
    "pneumothorax",
    "pleural_effusion",
    "pleural_other",
    "fracture",
    "support_devices",
)
"""The 13 observations of CheXpert (Irvin et al., AAAI 2019) in the order of its train.csv, without No Finding."""

CHEXPERT_COMPETITION = ("atelectasis", "cardiomegaly", "consolidation", "edema", "pleural_effusion")
"""The five labels of the CheXpert competition."""

KERMANY = ("pneumonia", "bacterial_pneumonia", "viral_pneumonia")
"""Kermany et al., Cell 2018; the two causes are read from the file names."""

SHARED_NIH_CHEXPERT = tuple(sorted({*NIH} & {*CHEXPERT}))
"""The seven findings that NIH and CheXpert both have (no_finding, an absence, is left out)."""

VINDR_SPELLING = {
    "aortic_enlargement": "Aortic enlargement",
    "atelectasis": "Atelectasis",
    "calcification": "Calcification",
    "cardiomegaly": "Cardiomegaly",
    "clavicle_fracture": "Clavicle fracture",
    "consolidation": "Consolidation",
    "edema": "Edema",
    "emphysema": "Emphysema",
    "enlarged_pulmonary_artery": "Enlarged PA",
    "interstitial_lung_disease": "ILD",
    "infiltration": "Infiltration",
    "lung_opacity": "Lung Opacity",
    "lung_cavity": "Lung cavity",
    "lung_cyst": "Lung cyst",
    "mediastinal_shift": "Mediastinal shift",
    "nodule_or_mass": "Nodule/Mass",
    "pleural_effusion": "Pleural effusion",
    "pleural_thickening": "Pleural thickening",
    "pneumothorax": "Pneumothorax",
    "pulmonary_fibrosis": "Pulmonary fibrosis",
    "rib_fracture": "Rib fracture",
    "other_lesion": "Other lesion",
    "copd": "COPD",
    "lung_tumor": "Lung tumor",
    "pneumonia": "Pneumonia",
    "tuberculosis": "Tuberculosis",
    "other_disease": "Other diseases",
}
"""The 22 local and 5 global findings of VinDr-CXR (Nguyen et al., Scientific Data 2022) in the order of its label
tables, No finding left out. VinBigData's train.csv has 14 of the local ones."""

VINDR = tuple(VINDR_SPELLING)

PADCHEST = (
    "air_trapping",
    "aortic_atheromatosis",
    "aortic_elongation",
    "atelectasis",
    "bronchiectasis",
    "cardiomegaly",
    "consolidation",
    "costophrenic_angle_blunting",
    "edema",
    "emphysema",
    "fibrosis",
    "flattened_diaphragm",
    "fracture",
    "granuloma",
    "hemidiaphragm_elevation",
    "hernia",
    "hilar_enlargement",
    "infiltration",
    "mass",
    "nodule",
    "pleural_effusion",
    "pleural_thickening",
    "pneumonia",
    "pneumothorax",
    "scoliosis",
    "support_devices",
    "tube",
    "tuberculosis",
)
"""The 28 groups of findings that torchxrayvision (Cohen et al., MIDL 2022) makes of PadChest's 193 names; the converter
in shards/convert/padchest.py says which names each holds."""

LABEL_SETS: dict[str, tuple[str, ...]] = {
    "nih": NIH,
    "chexpert": CHEXPERT,
    "chexpert_competition": CHEXPERT_COMPETITION,
    "kermany": KERMANY,
    "vindr": VINDR,
    "padchest": PADCHEST,
    "shared_nih_chexpert": SHARED_NIH_CHEXPERT,
}

CANONICAL: tuple[str, ...] = tuple(sorted({*NIH, *CHEXPERT, *KERMANY, *VINDR, *PADCHEST, "no_finding"}))
"""Every canonical name, alphabetical."""

# Spellings that differ from a canonical name by more than case, spaces, hyphens and underscores.
SYNONYMS = {
    "effusion": "pleural_effusion",
    "infiltrate": "infiltration",
    "infiltrates": "infiltration",
    "pleural": "pleural_thickening",  # ChestMNIST's short form
    "airspace_opacity": "lung_opacity",
    "oedema": "edema",
    "pulmonary_edema": "edema",
    "enlarged_cardiomediastinal_silhouette": "enlarged_cardiomediastinum",
    "no_findings": "no_finding",
    "normal": "no_finding",
    "bacteria": "bacterial_pneumonia",
    "virus": "viral_pneumonia",
    "enlarged_pa": "enlarged_pulmonary_artery",
    "ild": "interstitial_lung_disease",
    "nodule_mass": "nodule_or_mass",
    "other_diseases": "other_disease",
}

WRITTEN = {"1": 1, "1.0": 1, "0": 0, "0.0": 0, "-1": -1, "-1.0": -1, "": None}
"""Values as tables write them."""

POLICIES = ("ones", "zeros", "ignore")
"""U-Ones, U-Zeros and U-Ignore of the CheXpert paper."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")


def snake(name: str) -> str:
    """Return a spelling in lower case with underscores, e.g. "Pleural Effusion" -> "pleural_effusion"."""
    return re.sub(r"[\s\-_/]+", "_", name.strip().lower()).strip("_")


def known(name: str) -> str | None:
    """Return the canonical name of any known spelling, or None."""
    plain = snake(name)
    plain = SYNONYMS.get(plain, plain)
    return plain if plain in CANONICAL else None


def canonical(name: str) -> str:
    """Return the canonical name of any known spelling.

    Raises:
        InputError: an unknown label; the message lists the known ones.
    """
    found = known(name)
    if found is None:
        raise InputError(f"unknown label {name!r}; the labels are {', '.join(CANONICAL)}")
    return found


def check_name(name: str) -> str:
    """Return `name` if it can be a label column: a letter, then letters, digits and underscores, all lower case."""
    if not _NAME.fullmatch(name):
        raise InputError(f"label name {name!r} must be lower case letters, digits and underscores, e.g. 'lung_nodule'")
    return name


def resolve(
    values: np.ndarray,
    policy: str | Mapping[str, str] = "ones",
    blanks: str = "zeros",
    labels: Sequence[str] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """Turn stored labels into training targets and a mask of what counts in the loss.

    Args:
        values: int8 (N, L), entries 1, 0, -1 or NULL.
        policy: what an uncertain entry becomes, for all labels or per label ("ones", "zeros", "ignore"); in a mapping
            the key "default" serves the labels not named, and without it they are ignored where uncertain.
        blanks: what a not-mentioned entry becomes: "zeros" (as CheXpert's authors do) or "ignore".
        labels: the L label names; needed when `policy` is a mapping.

    Returns:
        y float32 (N, L) of 0 and 1 (0 where masked) and mask bool (N, L), True where the entry counts.

    Raises:
        InputError: an unknown policy, label or stored value.
    """
    values = np.asarray(values)
    if values.ndim != 2:
        raise InputError(f"labels must be a table of samples x labels, not {values.ndim}-dimensional")
    bad = ~np.isin(values, (POSITIVE, NEGATIVE, UNCERTAIN, NULL))
    if bad.any():
        raise InputError(f"labels hold the value {values[bad][0]}; allowed are 1, 0, -1 and NULL (-128)")
    if blanks not in ("zeros", "ignore"):
        raise InputError(f"blanks is {blanks!r}; allowed are zeros, ignore")
    y_NL = (values == POSITIVE).astype(np.float32)
    mask_NL = np.ones(values.shape, dtype=bool)
    for column, chosen in enumerate(_policies(policy, labels, values.shape[1])):
        uncertain = values[:, column] == UNCERTAIN
        y_NL[uncertain, column] = 1.0 if chosen == "ones" else 0.0
        if chosen == "ignore":
            mask_NL[uncertain, column] = False
    if blanks == "ignore":
        mask_NL[values == NULL] = False
    return y_NL, mask_NL


def _policies(policy: str | Mapping[str, str], labels: Sequence[str], count: int) -> list[str]:
    if isinstance(policy, str):
        chosen = [policy] * count
    else:
        if len(labels) != count:
            raise InputError(f"a policy per label needs the {count} label names, got {len(labels)}")
        per_label = {name if name == "default" else canonical_or_own(name, labels): p for name, p in policy.items()}
        default = per_label.get("default", "ignore")
        chosen = [per_label.get(name, default) for name in labels]
        for name in per_label:
            if name != "default" and name not in labels:
                raise InputError(f"policy for {name!r}, which is not among the labels {', '.join(labels)}")
        chosen_names = list(per_label.values())
        _check_policies(chosen_names)
    _check_policies(chosen)
    return chosen


def _check_policies(chosen: Sequence[str]) -> None:
    for name in chosen:
        if name not in POLICIES:
            raise InputError(f"uncertainty policy {name!r}; allowed are {', '.join(POLICIES)}")


def canonical_or_own(name: str, labels: Sequence[str]) -> str:
    """Return `name` where it is one of `labels` already (a user's own label), else its canonical name."""
    return name if name in labels else canonical(name)


def choose(wanted: Sequence[str] | None, available: Sequence[str]) -> tuple[str, ...]:
    """Return the labels asked for (names, other spellings, or one name of LABEL_SETS), checked against a set's labels.

    Raises:
        InputError: one of them is not in `available`; the message lists what is.
    """
    if wanted is None:
        return tuple(available)
    names: list[str] = []
    for name in wanted:
        names += LABEL_SETS[name] if name in LABEL_SETS and name not in available else [name]
    chosen = tuple(dict.fromkeys(canonical_or_own(name, available) for name in names))
    absent = [name for name in chosen if name not in available]
    if absent:
        raise InputError(f"no label {', '.join(absent)} in this shard set; it has {', '.join(available)}")
    return chosen
