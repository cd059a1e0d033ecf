"""A user's own table becomes a shard set: its columns, findings, splits and kinds of files."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from shards import InputError, read_card
from shards.verify import verify
from tests.shards.convert.conftest import hashes, jpeg, make, picture, png, stored
from tests.shards.convert.own_tables import config, write_table
from tests.shards.convert.test_dicom import TWELVE, dicom

MIXED = {
    "a/one.png": png(picture(1)),
    "a/two.jpg": jpeg(picture(2)),
    "three.tiff": cv2.imencode(".tiff", picture(3))[1].tobytes(),
    "four.dcm": dicom(TWELVE),
    "five": dicom(TWELVE),
}


def test_png_jpeg_tiff_and_dicom_of_one_table_become_samples(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    rows = [f"{name},p{n},1,-1" for n, name in enumerate(MIXED)]
    write_table(root, ["path,who,Effusion,Edema", *rows], MIXED)
    index, rejects, _ = make(config(root, patient_column="who", name="ours"))
    assert len(index) == 5 and len(rejects) == 0
    assert read_card(tmp_path / "out").name == "ours"
    assert (index.label_pleural_effusion == 1).all() and (index.label_edema == -1).all()
    assert set(index.patient_id) == {f"p{n}" for n in range(5)}


def test_columns_are_mapped_as_the_user_says(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    lines = [
        "file;".replace(";", ",") + "fold,proj,gender,years,TB,Other",
        "x.png,valid,pa,Female,031Y,1,",
        "y.png,TEST,lat,m,4M,0,-1",
    ]
    write_table(root, lines, {"x.png": png(picture(1)), "y.png": png(picture(2))})
    options = {"path_column": "file", "split_column": "fold", "view_column": "proj", "sex_column": "gender"}
    options |= {"age_column": "years", "labels": {"TB": "tuberculosis", "Other": "lung lesion"}}
    index = make(config(root, **options))[0].set_index("source")
    assert index.split.to_dict() == {"x.png": "val", "y.png": "test"}
    assert index["view"].to_dict() == {"x.png": "PA", "y.png": "LATERAL"}
    assert index.sex.to_dict() == {"x.png": "F", "y.png": "M"}
    assert index.age["x.png"] == 31 and index.age["y.png"] == pytest.approx(1 / 3)
    assert index.label_tuberculosis.to_dict() == {"x.png": 1, "y.png": 0}
    assert pd.isna(index.label_lung_lesion["x.png"]) and index.label_lung_lesion["y.png"] == -1
    assert read_card(tmp_path / "out").split_scheme == "list"


def test_studies_of_a_column_reach_the_index_and_a_set_without_one_stays_as_it_was(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    lines = ["path,who,visit,Edema", "x.png,1,7.0,1", "y.png,1,7,0", "z.png,2,,0"]
    write_table(root, lines, {f"{name}.png": png(picture(n)) for n, name in enumerate("xyz")})
    index, _, _ = make(config(root, patient_column="who", study_column="visit"))
    assert index.set_index("key").study_id.fillna("").to_dict() == {"x": "7", "y": "7", "z": ""}
    assert read_card(tmp_path / "out").studies == 1 and verify(tmp_path / "out", workers=1) == []
    assert "study_column" not in config(root).recorded(), "older sets have their settings, and so their hash"
    plain, _, _ = make(config(root, patient_column="who", out=str(tmp_path / "plain")))
    assert "study_id" not in plain and read_card(tmp_path / "plain").studies == 0


def test_cells_that_are_not_understood_become_null_and_are_counted(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    write_table(
        root,
        ["path,Mass,sex,age", "x.png,1,male,31", "y.png,0,0,old", "z.png,0,,"],
        {n: png(picture(1)) for n in ("x.png", "y.png", "z.png")},
    )
    index, _, told = make(config(root, sex_column="sex", age_column="age"))
    assert index.set_index("source").sex.isna().to_dict() == {"x.png": False, "y.png": True, "z.png": True}
    assert "column sex: 1 values are not understood and become null (first: '0')" in told
    assert "column age: 1 values are not understood and become null (first: 'old')" in told


def test_findings_in_one_column_are_spread_over_labels(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    lines = ["path,found", "x.png,Mass; TB", "y.png,", "z.png,Infiltrate"]
    write_table(root, lines, {name: png(picture(1)) for name in ("x.png", "y.png", "z.png")})
    with pytest.raises(InputError, match=r"line 2: unknown label 'TB'.*--labels"):
        make(config(root, findings_column="found", separator=";"))
    index = make(config(root, findings_column="found", separator=";", labels={"TB": "tuberculosis"}))[0]
    found = index.set_index("source")[["label_mass", "label_tuberculosis", "label_infiltration"]]
    assert found.loc["x.png"].tolist() == [1, 1, 0]
    assert found.loc["y.png"].tolist() == [0, 0, 0]
    assert found.loc["z.png"].tolist() == [0, 0, 1]


def test_splits_are_drawn_by_patient_where_the_table_has_none(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    names = [f"{n:02d}.png" for n in range(30)]
    write_table(
        root,
        ["path,p,Mass", *(f"{name},p{n // 3},0" for n, name in enumerate(names))],
        {n: png(picture(1)) for n in names},
    )
    index = make(config(root, patient_column="p"))[0]
    assert index.groupby("patient_id")["split"].nunique().max() == 1
    assert index.groupby("split").size().to_dict() == {"test": 6, "train": 21, "val": 3}


def test_patients_written_as_numbers_with_blanks_are_the_patients_meant(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    ids = {"a": "1.0", "b": "1", "c": "nan", "d": "<NA>", "e": "None", "f": "NA", "g": "1.5"}
    write_table(root, ["path,who,Mass", *(f"{n}.png,{i},0" for n, i in ids.items())], {
        f"{n}.png": png(picture(1)) for n in ids
    })  # fmt: skip
    index = make(config(root, patient_column="who"))[0].set_index("key")
    assert index.patient_id.to_dict() == {"a": "1", "b": "1", "c": "c", "d": "d", "e": "e", "f": "f", "g": "1.5"}


def test_lists_of_findings_as_python_writes_them_are_read(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    lines = ["path,found", "x.png,\"['Edema', ' Mass', '']\"", "y.png,['normal']", "z.png,[]", "w.png,nan"]
    names = [f"{name}.png" for name in "xyzw"]
    write_table(root, lines, {name: png(picture(1)) for name in names})
    index = make(config(root, findings_column="found"))[0].set_index("source")
    found = index[["label_edema", "label_mass", "label_no_finding"]]
    assert [found.loc[name].tolist() for name in names] == [[1, 1, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]]
    write_table(root, ["path,found", "x.png,['Edema"], {})
    with pytest.raises(InputError, match="line 2: column found: .* is not a list of findings"):
        make(config(root, findings_column="found", out=str(tmp_path / "o2")))


def test_other_findings_can_be_left_out_and_are_counted(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    lines = ["path,found", "x.png,Mass|suture|suture", "y.png,pacemaker", "z.png,suture|Edema"]
    write_table(root, lines, {f"{name}.png": png(picture(1)) for name in "xyz"})
    index, _, told = make(config(root, findings_column="found", other_findings="ignore"))
    assert sorted(name for name in index.columns if name.startswith("label_")) == ["label_edema", "label_mass"]
    assert "4 findings of 2 kinds are ignored (most often: 'suture')" in told


def test_validate_is_a_split(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    write_table(root, ["path,fold,Mass", "x.png,validate,0", "y.png,Train,0"], {
        name: png(picture(1)) for name in ("x.png", "y.png")
    })  # fmt: skip
    assert make(config(root, split_column="fold"))[0].set_index("source").split["x.png"] == "val"


def test_without_pydicom_dicom_files_are_refused_with_the_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "mine"
    write_table(root, ["path,Mass", "four.dcm,1"], {"four.dcm": MIXED["four.dcm"]})
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(InputError, match=r"pip install 'cxrdist\[dicom\]'"):
        make(config(root))


def test_dicom_pixels_arrive_in_the_shard_as_they_are_seen(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    write_table(root, ["path,Mass", "a.dcm,1"], {"a.dcm": dicom(4095 - TWELVE, kind="MONOCHROME1")})
    index = make(config(root, size=40, image_format="png"))[0]
    assert np.array_equal(stored(tmp_path / "out", index.to_dict("records")[0]), picture(3, 40, 50))


def test_black_and_nearly_constant_images_are_counted_aloud_by_shard_and_verify(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    dark = (picture(4).astype(np.uint16) // 32).astype(np.uint16)  # 8-bit values in a 16-bit file
    files = {"a.png": png(picture(1)), "b.png": png(np.zeros((40, 40), np.uint8)), "c.png": png(dark)}
    write_table(root, ["path,Mass", *(f"{name},0" for name in files)], files)
    _, _, told = make(config(root))
    warning = "WARNING: 2 of 3 stored images are nearly of one grey"
    assert any(line.startswith(warning) for line in told)
    assert read_card(tmp_path / "out").flat_images == 2
    said: list[str] = []
    assert verify(tmp_path / "out", workers=1, say=said.append) == []
    assert any(line.startswith(warning) for line in said)


def test_the_same_source_gives_the_same_bytes_with_unreadable_files_in_it(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    broken = cv2.imencode(".tiff", picture(3))[1].tobytes()[:200]
    files = {"a.png": png(picture(1)), "b.tif": broken, "c.tif": b"II*\0" + bytes(90), "d.tiff": b"MM\0*\0\0\0\x08"}
    write_table(root, ["path,Mass", *(f"{name},0" for name in files)], files)
    make(config(root, max_rejects=1.0))
    make(config(root, max_rejects=1.0, out=str(tmp_path / "again")))
    assert hashes(tmp_path / "out") == hashes(tmp_path / "again")
    reasons = pd.read_parquet(tmp_path / "out" / "rejects.parquet").reason
    assert len(reasons) == 3 and not reasons.str.contains("0x|\n").any()
