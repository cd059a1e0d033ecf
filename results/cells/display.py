"""How columns, metrics and values are spelled for a reader, and in which order they stand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

METRIC_TITLES = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "precision": "Precision",
    "recall": "Sensitivity",
    "specificity": "Specificity",
    "f1": "F1",
    "brier": "Brier score",
    "ece": "ECE",
    "tp": "True positives",
    "fp": "False positives",
    "tn": "True negatives",
    "fn": "False negatives",
}
LOWER_IS_BETTER = {"brier", "ece", "fp", "fn"}

AXIS_TITLES = {
    "test_dataset": "Test set",
    "train_dataset": "Training set",
    "split_scheme": "Split",
    "label_policy": "Label policy",
    "level": "Scored by",
    "arch": "Architecture",
    "init": "Initialisation",
    "mode": "Mode",
    "variant": "Variant",
    "method": "Pretraining method",
    "pretrain_dataset": "Pretraining set",
    "label_fraction": "Labels",
    "label": "Pathology",
    "metric": "Metric",
    "seed": "Seed",
}
AXES = tuple(name for name in AXIS_TITLES if name != "seed")
"""Columns that tell cells apart; only the seed varies inside one."""

IMPLIED = ("method",)
"""Axes that others give away, and which are shown only where asked for: the initialisation's name has the method."""

METHOD_TITLES = {"simclr": "SimCLR", "vicreg": "VICReg"}

_CHEXPERT5 = ("atelectasis", "cardiomegaly", "consolidation", "edema", "pleural_effusion")
_SHARED = tuple(sorted((*_CHEXPERT5, "pneumonia", "pneumothorax")))
LABEL_SETS = {
    "chexpert5": _CHEXPERT5,
    "shared": _SHARED,
    "chexpert_competition": _CHEXPERT5,
    "shared_nih_chexpert": _SHARED,
}
"""Labels that are often averaged: CheXpert's competition tasks (Irvin et al. 2019), and the seven findings that NIH and
CheXpert share; under the names that `--labels` of `finetune` takes, too."""

_LEVELS = {"image": "image", "study": "study (mean)", "study_max": "study (maximum)"}
_INIT_ORDER = ("scratch", "imagenet", "kmeans-patches")
FULL_RECIPE = "full recipe"


def show(axis: str, value: Any) -> str:
    """A value as a table prints it."""
    if axis == "variant":
        return FULL_RECIPE if value is None else str(value)
    if value is None:
        return "none" if axis in ("pretrain_dataset", "method") else "not recorded"
    if axis not in AXIS_TITLES:  # a configuration key
        return f"{value:g}" if isinstance(value, float) else str(value)
    if axis == "label_fraction":
        return f"{100 * value:.6g} %"
    if axis == "label":
        return "Macro mean" if value == "macro" else str(value).replace("_", " ").capitalize()
    if axis == "metric":
        return METRIC_TITLES.get(value, str(value))
    if axis == "level":
        return _LEVELS.get(value, str(value))
    if axis == "method":
        return METHOD_TITLES.get(value, str(value))
    if axis == "init":
        return {"imagenet": "ImageNet", "scratch": "Scratch", "kmeans-patches": "K-means patches"}.get(
            value, str(value)
        )
    return str(value)


def pretraining_titles(methods: Iterable[str | None]) -> dict[str | None, str]:
    """How pretraining runs are called, by method: which one is said unless all are SimCLR's (None: not recorded)."""
    held = sorted(set(methods), key=lambda method: (method not in (None, "simclr"), method or ""))
    if set(held) <= {None, "simclr"}:
        return dict.fromkeys(held, "Pretraining")
    return {method: f"Pretraining, {show('method', method or 'simclr')}" for method in held}


def sort_key(axis: str, value: Any) -> tuple[Any, ...]:
    """Order of an axis: numbers by size, scratch and ImageNet first, the macro mean last, the full recipe first."""
    if value is None:
        return (0, 0, "")
    if isinstance(value, (int, float)):
        return (1, value, "")
    if axis == "init" and value in _INIT_ORDER:
        return (1, _INIT_ORDER.index(value), "")
    if axis == "metric" and value in METRIC_TITLES:
        return (1, list(METRIC_TITLES).index(value), "")
    return (3 if axis == "label" and value == "macro" else 2, 0, str(value))


MISSING = "\u2013"


UNDEFINED = "undefined"


SINGLE_SEED_MARK = "\u2020"


FEW_MARK = "\u2021"


def sorted_keys(keys: set[tuple[Any, ...]], axes: Sequence[str]) -> list[tuple[Any, ...]]:
    """Row or column keys in the order of their axes."""
    return sorted(keys, key=lambda key: [sort_key(axis, value) for axis, value in zip(axes, key, strict=True)])
