"""Small published layouts of random pictures, and what the tests of the converters share."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from shards.convert.config import ConvertConfig, NihConfig
from shards.convert.engine import convert
from shards.convert.standing import planned

NIH_2017 = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)


def picture(seed: int, height: int = 40, width: int = 40) -> np.ndarray:
    """A smooth random grey picture, uint8 (height, width)."""
    rough = np.random.default_rng(seed).integers(0, 256, (5, 5)).astype(np.uint8)
    return cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC)


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def jpeg(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()


def write_nih(root: Path, patients: int = 6, each: int = 4, findings: Sequence[str] = ("No Finding",)) -> list[str]:
    """An NIH folder in the 2017 spelling: the last third of the patients is test. Returns the image names."""
    (root / "images_001" / "images").mkdir(parents=True)
    lines, train, test = [NIH_2017], [], []
    for patient in range(1, patients + 1):
        for visit in range(each):
            name = f"{patient:08d}_{visit:03d}.png"
            finding = findings[(patient + visit) % len(findings)]
            lines.append(f"{name},{finding},{visit},{patient:08d},058Y,M,PA,2682,2749,0.143,0.143,")
            (test if patient > patients * 2 // 3 else train).append(name)
            (root / "images_001" / "images" / name).write_bytes(png(picture(100 * patient + visit)))
    (root / "Data_Entry_2017.csv").write_text("\n".join(lines) + "\n")
    (root / "train_val_list.txt").write_text("\n".join(train))
    (root / "test_list.txt").write_text("\n".join(test))
    return train + test


def make(config: ConvertConfig) -> tuple[Any, Any, list[str]]:
    """Convert; gives index and rejects (data frames) and the lines told to the user."""
    told: list[str] = []
    convert(planned(config, say=told.append), config, say=told.append)
    out = Path(config.out)
    return pd.read_parquet(out / "index.parquet"), pd.read_parquet(out / "rejects.parquet"), told


def stored(folder: str | Path, row: Any) -> np.ndarray:
    """The stored image of one row (a dict) of the index, decoded; read as the contract says, by one pread."""
    with open(Path(folder) / row["shard"], "rb") as file:
        data = os.pread(file.fileno(), int(row["size"]), int(row["offset"]))
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert image is not None
    return image


def grey_file(path: Path) -> np.ndarray:
    """A file as OpenCV decodes it to grey."""
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert image is not None
    return image


def hashes(folder: Path) -> dict[str, str]:
    """sha256 of every file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def same_observations(index: pd.DataFrame, theirs: Any, keys: list[str]) -> None:
    """Equal up to what they fill in: 0 beside "no finding", and nothing where we keep -1 or a blank."""
    compared = 0
    for row, key in zip(theirs.labels, keys, strict=True):
        free = index.label_no_finding[key] == 1
        for label, value in zip(theirs.pathologies, row, strict=True):
            name = "label_" + label.lower().replace(" ", "_").replace("effusion", "pleural_effusion")
            ours = index.at[key, name]
            if np.isnan(value):
                assert pd.isna(ours) or ours == -1
            else:
                assert ours == value or (free and value == 0)
            compared += 1
    assert compared > 50


@pytest.fixture
def nih(tmp_path: Path) -> Path:
    """An NIH folder of 24 pictures."""
    write_nih(tmp_path / "nih")
    return tmp_path / "nih"


@pytest.fixture
def nih_config(nih: Path, tmp_path: Path) -> Callable[..., NihConfig]:
    """Makes a quick configuration for that folder."""

    def build(out: str = "out", **changes: Any) -> NihConfig:
        settings = {"src": str(nih), "out": str(tmp_path / out), "size": 32, "shard_size": 6, "workers": 1, **changes}
        return NihConfig(**settings)

    return build
