"""Every converter on a set in its published layout, from images to a fine-tuned model's input."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from jobs.cli import main, parse
from shards import InputError, ShardSet, read_card
from shards.convert.padchest import groups_of
from shards.convert.registry import CONVERTERS, plan
from shards.read.index import Index
from shards.verify import verify
from tests.shards.convert import layouts
from tests.shards.convert.conftest import make, picture, png
from tests.shards.convert.test_dicom import TWELVE, dicom

WRITERS: dict[str, Callable[[Path], None]] = {
    "mimic": layouts.write_mimic,
    "padchest": layouts.write_padchest,
    "vindr": layouts.write_vindr,
    "rsna": layouts.write_rsna,
    "brax": layouts.write_brax,
    "chexpert_plus": layouts.write_chexpert_plus,
    "siim": layouts.write_siim,
}


def config(name: str, root: Path, **changes: Any) -> Any:
    words = [
        "--src",
        str(root),
        "--out",
        str(changes.pop("out", root.parent / "out")),
        "--size",
        "32",
        "--workers",
        "1",
    ]
    for key, value in changes.items():
        words += [f"--{key}", str(value)]
    return parse("shard", [name, *words])


def converted(name: str, root: Path, **changes: Any) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    WRITERS[name](root)
    return make(config(name, root, **changes))


@pytest.mark.parametrize("name", WRITERS)
def test_a_published_layout_becomes_a_whole_set_that_readers_open(name: str, tmp_path: Path) -> None:
    index, rejects, _ = converted(name, tmp_path / "src")
    card = read_card(tmp_path / "out")
    assert verify(tmp_path / "out", workers=1) == []
    assert (
        card.name == name and card.n_samples == len(index) and len(index) + len(rejects) == sources_of(tmp_path / "src")
    )
    assert card.licence and card.citation.startswith("@") and card.home.startswith("https://")
    assert not card.shared_patients
    images = ShardSet(tmp_path / "out", "train")
    assert min(images[0]["image"].shape[-2:]) == 32
    again, _, _ = make(config(name, tmp_path / "src", out=tmp_path / "again"))
    pd.testing.assert_frame_equal(index, again)
    assert read_card(tmp_path / "again").sha256 == card.sha256


def sources_of(root: Path) -> int:
    return sum(1 for path in root.rglob("*") if path.suffix in (".jpg", ".png", ".dcm", ".dicom"))


def test_the_help_lists_every_set(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        parse("shard", ["--help"])
    told = capsys.readouterr().out
    assert all(f"  {name} " in told for name in (*CONVERTERS, "phantom"))


# --- mimic


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


# --- padchest


def test_padchest_reads_its_lists_ages_views_and_folders(tmp_path: Path) -> None:
    index, rejects, _ = converted("padchest", tmp_path / "src")
    rows = index.set_index(index.key.str[40:45].astype(int))
    assert set(rows.index) == {0, 1, 4, 5, 8, 9, 12, 13}
    assert sorted(rejects.reason.value_counts().to_dict().items()) == [
        ("lateral view (views=frontal)", 2), ("no labels", 2), ("view unknown (views=frontal)", 4),
    ]  # fmt: skip
    assert (
        rows.source[4] == "1/" + rows.key[4] + ".png" and rows.patient_id[4] == "839860488694292331637988235681460989"
    )
    assert rows.label_no_finding[0] == 1 and rows.label_pleural_effusion[1] == 1
    assert rows.label_costophrenic_angle_blunting[1] == 1 and rows.label_infiltration[4] == rows.label_nodule[4] == 1
    assert rows.label_tube[5] == rows.label_tuberculosis[5] == 1 and rows.label_tube[1] == 0
    assert (
        rows.age[0] == 84
        and bool(rows.age.isna()[1])
        and rows["view"].to_dict()[1] == "AP"
        and bool(rows.sex.isna()[5])
    )
    physician = make(config("padchest", tmp_path / "src", physician_only="true", out=tmp_path / "p"))[0]
    assert len(physician) == 4


def test_padchest_names_may_be_labels_of_their_own(tmp_path: Path) -> None:
    index = converted("padchest", tmp_path / "src", findings="published", views="all")[0]
    assert {"label_pericardial_effusion", "label_nsg_tube", "label_no_finding", "label_pleural_effusion"} <= set(index)
    own = index.set_index(index.key.str[40:45].astype(int))
    assert own.label_pericardial_effusion[3] == 1 and own.label_pleural_effusion[3] == 0


def test_padchest_in_one_folder_is_read_too(tmp_path: Path) -> None:
    layouts.write_padchest(tmp_path / "src")
    for path in list((tmp_path / "src").glob("*/*.png")):
        path.rename(tmp_path / "src" / path.name)
    for number in range(3):
        (tmp_path / "src" / str(number)).rmdir()
    assert len(make(config("padchest", tmp_path / "src"))[0]) == 8


def test_padchest_groups_equal_torchxrayvisions_on_every_published_label_list(tmp_path: Path) -> None:
    xrv = pytest.importorskip("torchxrayvision", reason="torchxrayvision: not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = xrv.datasets.PC_Dataset(str(tmp_path), views=["*"], unique_patients=False)
    cells = theirs.csv["Labels"].tolist()
    names = ["label_" + name.lower().replace(" ", "_") for name in theirs.pathologies]
    names = ["pleural_effusion" if name == "label_effusion" else name.removeprefix("label_") for name in names]
    seen: dict[str, np.ndarray] = {}
    for cell, row in zip(cells, theirs.labels, strict=True):
        seen.setdefault(cell, row)
    different = []
    for cell, row in seen.items():
        ours = {group for name in layouts_parts(cell) for group in groups_of(name)} - {"no_finding"}
        wanted = {name for name, value in zip(names, row, strict=True) if value}
        if ours != wanted:
            different.append((cell, ours ^ wanted))
    # they miss a tube whose name has a blank behind it
    assert all(groups <= {"tube"} and ("tube '" in cell or "stent '" in cell) for cell, groups in different)
    assert len(seen) > 10_000


def layouts_parts(cell: str) -> list[str]:
    from shards.convert.padchest import parts

    return parts(cell, "test")


# --- vindr


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


# --- rsna


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


# --- brax, chexpert_plus, siim


def test_brax_labels_equal_torchxrayvisions_and_its_oldest_are_85(tmp_path: Path) -> None:
    xrv = pytest.importorskip("torchxrayvision", reason="torchxrayvision: not installed")
    index, rejects, _ = converted("brax", tmp_path / "src")
    assert sorted(set(index.age)) == [45, 50, 85] and set(index["view"]) == {"PA", "AP"}
    assert rejects.reason.value_counts().to_dict() == {
        "lateral view (views=frontal)": 3,
        "view unknown (views=frontal)": 3,
    }
    table = str(tmp_path / "src" / "master_spreadsheet_update.csv")
    theirs = xrv.datasets.BRAX_Dataset(str(tmp_path / "src"), csvpath=table, views=["PA", "AP"], unique_patients=False)
    keys = ["_".join(path.split("/")[1:]).removesuffix(".png") for path in theirs.csv["PngPath"]]
    by_source = index.set_index(index.source.str.split("/").str[1:].str.join("_").str.removesuffix(".png"))
    same_observations(by_source, theirs, keys)


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


def test_siim_finds_its_files_in_nested_folders_and_lists_the_unlabelled(tmp_path: Path) -> None:
    index, rejects, _ = converted("siim", tmp_path / "src")
    assert index.label_pneumothorax.sum() == 2 and len(index) == 8
    assert (
        index.patient_id.nunique() == 4
        and (index.age == 51).all()
        and rejects.reason.tolist() == ["no row in train-rle.csv"]
    )


# --- a folder of DICOM files


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


# --- what all refuse


def test_a_folder_of_another_set_is_one_clear_error(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "x.png").write_bytes(png(picture(1)))
    for name in (*WRITERS, "dicom"):
        assert main(["shard", name, "--src", str(tmp_path / "src"), "--out", str(tmp_path / "out")]) == 2
        told = capsys.readouterr().err.strip()
        assert len(told.splitlines()) == 1 and str(tmp_path / "src") in told, name


@pytest.mark.parametrize(
    ("name", "file", "old", "new", "message"),
    [
        ("mimic", "mimic-cxr-2.0.0-split.csv.gz", "validate", "later", "split 'later'"),
        ("mimic", "mimic-cxr-2.0.0-chexpert.csv.gz", "Lung Lesion", "Lung Leison", "no column for lung_lesion"),
        (
            "padchest",
            "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz",
            "['normal']",
            "['normal",
            "not a list of findings",
        ),
        ("vindr", "annotations/image_labels_train.csv", "Lung cyst", "Lung zyst", "no column for lung_cyst"),
        ("rsna", "stage_2_detailed_class_info.csv", "Lung Opacity", "Opaque", "class 'No Opaque"),
        ("brax", "master_spreadsheet_update.csv", "images/id", "pictures/id", "is not images/id_"),
        ("chexpert_plus", "chexbert_labels/impression_fixed.json", "path_to_image", "path", "is not an object with"),
        ("siim", "train-rle.csv", "ImageId", "Image", "no column 'ImageId'"),
    ],
)
def test_tables_that_cannot_be_are_errors_that_name_the_place(
    name: str, file: str, old: str, new: str, message: str, tmp_path: Path
) -> None:
    WRITERS[name](tmp_path / "src")
    path = tmp_path / "src" / file
    text = layouts.unzip_text(path) if path.suffix == ".gz" else path.read_text()
    layouts.put(path, text.replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        plan(config(name, tmp_path / "src"))


def test_studies_are_in_the_index_of_every_set_that_has_them(tmp_path: Path) -> None:
    converted("mimic", tmp_path / "src")
    index = Index.open(tmp_path / "out")
    assert len(set(index.study_id())) == read_card(tmp_path / "out").studies == 16
