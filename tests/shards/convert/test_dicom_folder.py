"""A folder of DICOM files is a set by itself, with labels from a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shards import InputError
from tests.shards.convert import layouts
from tests.shards.convert.conftest import make
from tests.shards.convert.published import config
from tests.shards.convert.test_dicom import TWELVE, dicom


def test_a_dicom_folder_is_a_set_by_itself(tmp_path: Path) -> None:
    root = tmp_path / "src"
    for number in range(6):
        tags: dict[str, Any] = {
            "PatientID": f"p{number // 2}",
            "StudyInstanceUID": f"1.2.{number // 2}",
            "SOPInstanceUID": f"1.2.3.{number}",
        }
        tags |= {"ViewPosition": "PA LL"[3 * (number % 2) :][:2], "PatientSex": "F", "PatientAge": "040Y"}
        layouts.put(root / f"study{number // 2}" / f"IM{number:04d}", dicom(TWELVE, **tags))
    layouts.put(root / "DICOMDIR.txt", "not one")
    layouts.put(root / "report", dicom(TWELVE, PatientID="p9").replace(b"\x28\x00\x10\x00", b"\x29\x00\x10\x00", 1))
    index, rejects, _ = make(config("dicom", root, max_rejects=0.5))
    assert len(index) == 6 and not any(name.startswith("label_") for name in index.columns)
    assert index.groupby("patient_id").study_id.nunique().to_dict() == {"p0": 1, "p1": 1, "p2": 1}
    assert index.groupby("patient_id").split.nunique().max() == 1 and (index.age == 40).all()
    assert sorted(index["view"].dropna().unique()) == ["LATERAL", "PA"]
    assert len(rejects) <= 1
    table = "SOPInstanceUID,Edema\n" + "".join(f"1.2.3.{number},{number % 2}\n" for number in range(5))
    (root / "labels.csv").write_text(table)
    labelled, _, told = make(config("dicom", root, table="labels.csv", max_rejects=0.5, out=tmp_path / "o2"))
    assert labelled.label_edema.sum() == 2 and labelled.label_edema.isna().sum() == 1
    assert "images without a label in the table, whose labels are null: 1" in told
    frontal, left, _ = make(
        config("dicom", root, table="labels.csv", views="frontal", max_rejects=0.5, out=tmp_path / "f")
    )
    assert len(frontal) == 3 and not left.reason.str.contains("row without").any()  # rows of laterals have their file
    (root / "labels.csv").write_text(table + "1.2.3.99,1\n")
    with pytest.raises(InputError, match=r"1 rows of labels.csv name no image \(first: 1.2.3.99\)"):
        make(config("dicom", root, table="labels.csv", out=tmp_path / "o3"))
    (root / "labels.csv").write_text(table + ",1\n")
    with pytest.raises(InputError, match=r"line 7: column SOPInstanceUID is empty"):
        make(config("dicom", root, table="labels.csv", out=tmp_path / "o4"))
    (root / "labels.csv").write_text("SOPInstanceUID,Effusion,Pleural Effusion\n1.2.3.0,0,1\n")
    with pytest.raises(InputError, match="columns Effusion, Pleural Effusion both hold pleural_effusion"):
        make(config("dicom", root, table="labels.csv", out=tmp_path / "o5"))
