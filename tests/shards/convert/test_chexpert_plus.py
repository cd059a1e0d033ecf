"""CheXpert Plus: labels from lines of JSON, and its splits."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from shards import read_card
from tests.shards.convert.conftest import make
from tests.shards.convert.published import config, converted


def test_chexpert_plus_reads_its_json_lines_and_finds_png_for_jpg(tmp_path: Path) -> None:
    index, rejects, told = converted("chexpert_plus", tmp_path / "src")
    assert len(index) == 6 and rejects.reason.tolist() == ["lateral view (views=frontal)"] * 6
    assert index.source.str.endswith(".png").all() and set(index.split) == {"train", "val"}
    assert "images without a line in impression_fixed.json, whose labels are null: 1" in told
    lines = (tmp_path / "src" / "chexbert_labels" / "impression_fixed.json").read_text().splitlines()
    labels = {row["path_to_image"]: row for row in map(json.loads, lines)}
    for row in index.to_dict("records"):
        wanted = labels.get(row["source"].replace(".png", ".jpg"))
        if wanted is not None:
            value = wanted["Edema"]
            assert pd.isna(row["label_edema"]) if value is None else row["label_edema"] == value
    assert index.study_id.notna().all() and index.age.between(50, 62).all()


def test_chexpert_plus_makes_a_test_split_of_valid_where_that_is_asked_for(tmp_path: Path) -> None:
    published = converted("chexpert_plus", tmp_path / "src")[0]
    index = make(config("chexpert_plus", tmp_path / "src", valid_as="test", val_fraction=0.3, out=tmp_path / "o2"))[0]
    assert set(index[index.split == "test"].key) == set(published[published.split == "val"].key)
    assert set(index.split) == {"train", "val", "test"} and not read_card(tmp_path / "o2").shared_patients
    assert read_card(tmp_path / "o2").split_detail["valid_as"] == "test"
    assert "valid_as" not in read_card(tmp_path / "out").config, "older sets have their settings, and so their hash"
