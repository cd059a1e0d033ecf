"""Small published layouts to convert: drawn with integers alone, so that every machine draws the same pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

NIH_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)
NIH_FINDINGS = ("No Finding", "Pneumonia", "Effusion|Cardiomegaly", "Pneumonia|Edema", "No Finding")
CHEXPERT_HEADER = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,"
    "Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)
CHEXPERT_LABELS = {
    "train": ("1.0,,,,,,,,,0.0,,,,1.0", ",,-1.0,1.0,,-1.0,-1.0,,-1.0,,-1.0,,1.0,", ",,0.0,,,,1.0,-1.0,,,1.0,,,"),
    "valid": ("1.0" + ",0.0" * 13, "0.0,1.0,1.0,1.0" + ",0.0" * 9 + ",1.0"),
}


def picture(seed: int, height: int, width: int, sick: bool = False) -> np.ndarray:
    """Grey noise uint8 (height, width) with a disc on it, a large one where `sick`."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(40, 100, (height, width))
    y, x = np.mgrid[:height, :width]
    centre = rng.integers(height // 3, height - height // 3, 2)
    radius = height // 5 if sick else height // 9
    disc = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2
    return (noise + 110 * disc).astype(np.uint8)


def _write(path: Path, pixels: np.ndarray, options: Sequence[int] = ()) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels, options)


def write_nih(root: Path) -> None:
    """Twelve patients of two visits in the 2017 spelling, one file of them cut short, one finding with a box."""
    lines, lists = [NIH_HEADER], {"train_val_list.txt": [], "test_list.txt": []}
    for number in range(24):
        patient, visit = divmod(number, 2)
        name = f"{patient + 1:08d}_{visit:03d}.png"
        finding = NIH_FINDINGS[number % len(NIH_FINDINGS)]
        sex, view = "MF"[patient % 2], ("PA", "AP")[number % 3 == 0]
        lines.append(f"{name},{finding},{visit},{patient + 1:08d},{40 + patient:03d}Y,{sex},{view},60,48,0.143,0.143,")
        lists["test_list.txt" if patient >= 7 else "train_val_list.txt"].append(name)
        _write(root / "images_001" / "images" / name, picture(1000 + number, 48, 60, "Pneumonia" in finding))
    cut = root / "images_001" / "images" / "00000003_001.png"
    cut.write_bytes(cut.read_bytes()[:500])
    (root / "Data_Entry_2017.csv").write_text("\n".join(lines) + "\n")
    for name, images in lists.items():
        (root / name).write_text("\n".join(images))
    boxes = "Image Index,Finding Label,Bbox [x,y,w,h],,,\n00000001_001.png,Pneumonia,12.5,8,20.25,16\n"
    (root / "BBox_List_2017.csv").write_text(boxes)


def write_chexpert(root: Path) -> None:
    """Eight patients of the small edition: frontal and lateral views as JPEG, certain, uncertain and blank labels."""
    for split, patients in (("train", range(1, 7)), ("valid", range(64541, 64543))):
        lines = [CHEXPERT_HEADER]
        for patient in patients:
            for view in ("frontal", "lateral")[: 1 + patient % 2]:
                path = f"{split}/patient{patient:05d}/study1/view1_{view}.jpg"
                facts = f"{('Female', 'Male')[patient % 2]},{30 + patient % 50},{view.title()},"
                facts += "" if view == "lateral" else ("AP", "PA")[patient % 3 == 0]
                labels = CHEXPERT_LABELS[split][patient % len(CHEXPERT_LABELS[split])]
                lines.append(f"CheXpert-v1.0-small/{path},{facts},{labels}")
                _write(root / path, picture(2000 + patient, 40, 44), [cv2.IMWRITE_JPEG_QUALITY, 98])
        (root / f"{split}.csv").write_text("\n".join(lines) + "\n")


def write_medmnist(root: Path) -> None:
    """PneumoniaMNIST with 90 / 32 / 32 pictures of 28 pixels: what the golden runs learn from."""
    root.mkdir(parents=True)
    arrays: dict[str, Any] = {}
    for first, (split, count) in ((3000, ("train", 90)), (4000, ("val", 32)), (5000, ("test", 32))):
        labels = np.random.default_rng(first).integers(0, 2, count)
        arrays[f"{split}_images"] = np.stack([picture(first + i, 28, 28, bool(labels[i])) for i in range(count)])
        arrays[f"{split}_labels"] = labels[:, None].astype(np.uint8)
    np.savez(root / "pneumoniamnist.npz", **arrays)


LAYOUTS = {
    "nih": (write_nih, "--size 32 --shard_size 8 --max_rejects 0.1"),
    "chexpert": (write_chexpert, "--size 32 --shard_size 4 --views all"),
    "medmnist": (write_medmnist, "--shard_size 40"),
}
"""Name of a converter -> what writes its source, and the conversion's options."""
