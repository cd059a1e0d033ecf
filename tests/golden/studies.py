"""Small studies with known scores, and the tables made of them."""

from __future__ import annotations

from pathlib import Path

from tests.results import simulate

SEEDS = (0, 1, 2)
SIZE = {"val": 60, "test": 150}


def write_grid(folder: Path) -> None:
    """Three initialisations x two fractions x three seeds, and the pretraining behind the third."""
    encoder = simulate.pretrain(folder / "pretrain").read_info()["signature"]
    for init, auroc in (("scratch", 0.6), ("imagenet", 0.68), ("simclr:nih", 0.94)):
        for fraction in (0.1, 1.0):
            for seed in SEEDS:
                simulate.finetune(
                    folder / "cells",
                    labels={"cardiomegaly": auroc, "edema": auroc - 0.05, "pleural_effusion": auroc + 0.05 * fraction},
                    init=init,
                    init_signature=encoder if init.startswith("simclr") else None,
                    pretrain_dataset="nih" if init.startswith("simclr") else None,
                    label_fraction=fraction,
                    seed=seed,
                    n=SIZE,
                    history=False,
                )


def write_transfer(folder: Path) -> None:
    """Trained on either of two datasets, tested on both."""
    for train, auroc in (("nih", 0.9), ("chexpert", 0.65)):
        for seed in SEEDS:
            simulate.finetune(
                folder,
                labels={"edema": auroc},
                train_dataset=train,
                test_datasets=("nih", "chexpert"),
                data_seed={"nih": 0, "chexpert": 1},
                init="simclr:nih",
                pretrain_dataset="nih",
                seed=seed,
                n=SIZE,
                history=False,
            )


def write_recipes(folder: Path) -> None:
    """The full recipe and two variants of it."""
    for variant, auroc in ((None, 0.95), ("augment.blur=false", 0.6), ("head.hidden=64", 0.94)):
        for seed in SEEDS:
            simulate.finetune(folder, labels={"edema": auroc}, variant=variant, seed=seed, n=SIZE, history=False)


def write_search(folder: Path) -> None:
    """Four learning rates."""
    for rate, auroc in ((0.1, 0.6), (0.03, 0.8), (0.01, 0.95), (0.001, 0.75)):
        simulate.finetune(folder, labels={"edema": auroc}, config={"optim": {"lr": rate}}, n=SIZE, history=False)


STUDIES = {"grid": write_grid, "transfer": write_transfer, "recipes": write_recipes, "search": write_search}
"""Study -> what writes its runs; each becomes one file of results."""

TABLES = {
    "label-efficiency": ("grid", ""),
    "per-class": ("grid", "--where label_fraction=1"),
    "models": ("grid", "--where label_fraction=1"),
    "peak-accuracy": ("grid", ""),
    "cost": ("grid", ""),
    "transfer": ("transfer", ""),
    "ablation": ("recipes", ""),
    "search": ("search", ""),
}
"""Table -> the study it is made of, and its options."""

FORMATS = {"markdown": "md", "latex": "tex", "csv": "csv"}
"""Format of a table -> ending of its file."""
