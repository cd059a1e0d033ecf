"""RSNA's pneumonia challenge: NIH's patients, boxes, contradicting targets."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from shards import InputError, read_card
from tests.shards.convert import layouts
from tests.shards.convert.conftest import make
from tests.shards.convert.published import config, converted


def test_rsna_takes_nihs_patients_from_the_mapping_and_warns_without_it(tmp_path: Path) -> None:
    index, _, told = converted("rsna", tmp_path / "src")
    row = index.set_index("key").iloc[0]
    assert set(index.patient_id) == {"1", "2", "3", "4", "5"} and not any(line.startswith("WARNING") for line in told)
    assert (index.label_pneumonia == index.label_lung_opacity).all() and index.label_pneumonia.sum() == 3
    assert index.label_no_finding.sum() == 3 and row["view"] in ("PA", "AP") and row.age >= 40
    boxes = pd.read_parquet(tmp_path / "out" / "boxes.parquet")
    assert len(boxes) == 6 and set(boxes.label) == {"pneumonia"}
    (tmp_path / "src" / "pneumonia-challenge-dataset-mappings_2018.json").unlink()
    _, _, told = make(config("rsna", tmp_path / "src", out=tmp_path / "o2"))
    assert any(line.startswith("WARNING: these are NIH ChestX-ray14's images") for line in told)
    assert not read_card(tmp_path / "o2").patients_known


def test_rsna_contradicting_targets_are_an_error(tmp_path: Path) -> None:
    layouts.write_rsna(tmp_path / "src")
    path = tmp_path / "src" / "stage_2_train_labels.csv"
    first = path.read_text().splitlines()[1]
    path.write_text(path.read_text() + first[:-1] + "1\n")
    with pytest.raises(InputError, match="rows of 1 image contradict each other"):
        make(config("rsna", tmp_path / "src"))
