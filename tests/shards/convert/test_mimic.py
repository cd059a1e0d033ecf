"""MIMIC-CXR: patients, studies, views, splits and labels as published."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.shards.convert.conftest import make, same_observations
from tests.shards.convert.published import config, converted


def test_mimic_has_patients_studies_views_and_splits_as_published(tmp_path: Path) -> None:
    index, rejects, told = converted("mimic", tmp_path / "src")
    assert index.key.str.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{8}-aaaa").all() and set(index["view"]) == {"AP", "PA"}
    assert rejects.reason.tolist() == ["lateral view (views=frontal)"] * 8
    assert index.groupby("patient_id").study_id.nunique().eq(2).all()
    assert index.groupby("split").patient_id.nunique().to_dict() == {"test": 2, "train": 4, "val": 2}
    assert "studies without a row in the chexpert table, whose labels are null: 1" in told
    assert index.set_index("study_id").label_edema.loc["50414267"] is None or pd.isna(
        index.set_index("study_id").label_edema.loc["50414267"]
    )
    every = make(config("mimic", tmp_path / "src", views="all", labeler="negbio", out=tmp_path / "all"))[0]
    assert len(every) == 24 and every.label_no_finding.notna().any()


def test_mimic_labels_equal_torchxrayvisions(tmp_path: Path) -> None:
    xrv = pytest.importorskip("torchxrayvision", reason="torchxrayvision: not installed")
    index = converted("mimic", tmp_path / "src")[0].set_index("key")
    theirs = xrv.datasets.MIMIC_Dataset(
        str(tmp_path / "src"), csvpath=str(tmp_path / "src" / "mimic-cxr-2.0.0-chexpert.csv.gz"),
        metacsvpath=str(tmp_path / "src" / "mimic-cxr-2.0.0-metadata.csv.gz"), views=["PA", "AP"],
        unique_patients=False,
    )  # fmt: skip
    same_observations(index, theirs, theirs.csv["dicom_id"].tolist())
