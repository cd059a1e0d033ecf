"""VinDr-CXR and VinBigData: labels of several readers, and their boxes."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from shards import read_card
from tests.shards.convert import layouts
from tests.shards.convert.conftest import make
from tests.shards.convert.published import config, converted


def test_vindr_joins_its_readers_as_asked_and_keeps_their_boxes(tmp_path: Path) -> None:
    index, _, told = converted("vindr", tmp_path / "src")
    rows = pd.read_csv(tmp_path / "src" / "annotations" / "image_labels_train.csv").groupby("image_id")
    found = index.set_index("key")
    for image, votes in rows:
        assert found.label_cardiomegaly[image] == votes["Cardiomegaly"].max()
        assert found.label_no_finding[image] == votes["No finding"].min()
    assert set(index.split) == {"train", "val", "test"} or set(index.split) == {"train", "test"}
    assert "no patient ids in VinDr-CXR: every image counts as its own patient" in told
    boxes = pd.read_parquet(tmp_path / "out" / "boxes.parquet")
    assert len(boxes) and boxes[["x", "y", "width", "height"]].drop_duplicates().values.tolist() == [[3, 4, 10, 20]]
    majority = make(config("vindr", tmp_path / "src", readers="majority", out=tmp_path / "m"))[0].set_index("key")
    for image, votes in rows:
        assert majority.label_cardiomegaly[image] == (votes["Cardiomegaly"].sum() >= 2)


def test_vinbigdata_labels_equal_torchxrayvisions(tmp_path: Path) -> None:
    xrv = pytest.importorskip("torchxrayvision", reason="torchxrayvision: not installed")
    layouts.write_vinbigdata(tmp_path / "src")
    index = make(config("vindr", tmp_path / "src"))[0].set_index("key")
    theirs = xrv.datasets.VinDr_Dataset(str(tmp_path / "src" / "train"), csvpath=str(tmp_path / "src" / "train.csv"))
    names = {
        "Aortic enlargement": "aortic_enlargement",
        "Cardiomegaly": "cardiomegaly",
        "ILD": "interstitial_lung_disease",
    }
    names |= {
        "Effusion": "pleural_effusion",
        "Pleural_Thickening": "pleural_thickening",
        "Nodule/Mass": "nodule_or_mass",
    }
    for image, row in zip(theirs.csv["image_id"], theirs.labels, strict=True):
        for label, value in zip(theirs.pathologies, row, strict=True):
            if label in names:
                assert index.at[image, f"label_{names[label]}"] == value
    assert read_card(tmp_path / "out").split_scheme == "random"
