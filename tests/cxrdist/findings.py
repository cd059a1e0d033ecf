"""Small multi-label shard sets of drawn pictures, with uncertain and missing labels, made by the csv converter."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

SPLITS = {"train": 90, "val": 40, "test": 36}


def draw(pneumonia: bool, edema: bool, rng: np.random.Generator) -> np.ndarray:
    """A 32 x 32 picture: pneumonia is a bright disc on the left, edema stripes on the right."""
    picture = rng.normal(90, 20, (32, 32))
    if pneumonia:
        y, x = np.mgrid[:32, :32]
        picture[(x - 9) ** 2 + (y - rng.integers(10, 22)) ** 2 < 30] += 90
    if edema:
        picture[::4, 18:] += 90
    return np.clip(picture, 0, 255).astype(np.uint8)


def make(
    folder: Path,
    *,
    name: str = "findings",
    labels: Sequence[str] = ("pneumonia", "edema"),
    seed: int = 0,
    unsure: float = 0.0,
    blank: float = 0.0,
    positive: dict[str, float] | None = None,
    studies: bool = False,
) -> Path:
    """Write pictures and a table, convert them, return the shard set; patients have two pictures each.

    With `studies` the table says study (a patient's two pictures, which share their labels), view, sex and age.
    """
    from shards.convert.config import CsvConfig
    from shards.convert.engine import convert
    from shards.convert.registry import plan

    rng = np.random.default_rng(seed)
    source = folder / f"{name}-source"
    source.mkdir(parents=True)
    rows = []
    for split, count in SPLITS.items():
        for i in range(count):
            if not (studies and i % 2):
                truth = {label: bool(rng.random() < (positive or {}).get(label, 0.5)) for label in labels}
            picture = draw(truth.get("pneumonia", False), truth.get("edema", False), rng)
            cv2.imwrite(str(source / f"{split}{i:03d}.png"), picture)
            row = {"path": f"{split}{i:03d}.png", "patient": f"{split}-{i // 2}", "split": split}
            for label, value in truth.items():
                dice = rng.random()
                row[label] = "-1" if dice < unsure else "" if dice < unsure + blank else str(int(value))
            if studies:
                row |= {"study": f"s{i // 2}", "view": ("PA", "AP", "")[i % 3], "sex": "MF"[i // 2 % 2], "age": str(i)}
            rows.append(row)
    with open(source / "table.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    config = CsvConfig(
        src=str(source), out=str(folder / name), table="table.csv", name=name, patient_column="patient",
        split_column="split", size=32, workers=1, study_column="study" if studies else None,
        view_column="view" if studies else None, sex_column="sex" if studies else None,
        age_column="age" if studies else None,
    )  # fmt: skip
    convert(plan(config), config, say=lambda text: None)
    return folder / name
