"""Drawn datasets look as published, and the same seed gives the same files."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from shards.errors import InputError
from shards.phantom import write_chexpert, write_nih
from shards.phantom.case import STYLES, patient_cases


def _bytes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_same_seed_gives_the_same_files_on_any_number_of_processes(nih: Path, tmp_path: Path) -> None:
    write_nih(tmp_path / "again", n_patients=14, seed=3, size=64, workers=2)
    assert _bytes(tmp_path / "again") == _bytes(nih)


def test_another_seed_gives_other_pictures(nih: Path, tmp_path: Path) -> None:
    write_nih(tmp_path / "other", n_patients=14, seed=4, size=64, workers=0)
    shared = [name for name in _bytes(tmp_path / "other") if name in _bytes(nih) and name.endswith(".png")]
    assert shared
    assert all(_bytes(tmp_path / "other")[name] != _bytes(nih)[name] for name in shared)


def test_more_patients_leave_the_first_ones_as_they_are(nih: Path, tmp_path: Path) -> None:
    write_nih(tmp_path / "few", n_patients=5, seed=3, size=64, workers=0)
    pictures = {name: sha for name, sha in _bytes(tmp_path / "few").items() if name.endswith(".png")}
    assert pictures.items() <= _bytes(nih).items()


def test_a_log_holds_no_progress_bar(tmp_path: Path, capfd) -> None:
    write_chexpert(tmp_path / "set", n_patients=4, seed=0, size=32, workers=2)
    assert capfd.readouterr() == ("", "")


def test_a_complete_folder_is_not_drawn_again(nih: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in nih.rglob("*.png")}
    assert write_nih(nih, n_patients=14, seed=3, size=64, workers=0) == len(before)
    assert {path: path.stat().st_mtime_ns for path in nih.rglob("*.png")} == before


def test_an_interrupted_drawing_is_completed_to_the_same_bytes(nih: Path, tmp_path: Path) -> None:
    import json
    import shutil

    half = tmp_path / "half"
    shutil.copytree(nih, half)
    for path in [*half.rglob("*_000.png"), half / "BBox_List_2017.csv", half / "truth.csv"]:
        path.unlink()
    marker = json.loads((half / "phantom.json").read_text())
    del marker["images"]
    (half / "phantom.json").write_text(json.dumps(marker | {"complete": False}))
    write_nih(half, n_patients=14, seed=3, size=64, workers=0)
    assert _bytes(half) == _bytes(nih)


def test_nih_tables_have_the_published_header_and_name_every_picture(nih: Path) -> None:
    text = (nih / "Data_Entry_2017_v2020.csv").read_text()
    assert text.splitlines()[0] == (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
    )
    rows = list(csv.DictReader(text.splitlines()))
    pictures = {path.name for path in nih.glob("images_*/images/*.png")}
    listed = [(nih / name).read_text().split() for name in ("train_val_list.txt", "test_list.txt")]
    assert {row["Image Index"] for row in rows} == pictures == {*listed[0], *listed[1]}
    patients = [{name.split("_")[0] for name in names} for names in listed]
    assert patients[0].isdisjoint(patients[1])
    for row in rows:
        assert row["Image Index"] == f"{int(row['Patient ID']):08d}_{int(row['Follow-up #']):03d}.png"
        assert set(row["Finding Labels"].split("|")) <= {*_published_nih(), "No Finding"}


def _published_nih() -> set[str]:
    return {name for name in map(str.strip, "Atelectasis Cardiomegaly Consolidation Edema Effusion Emphysema Fibrosis "
            "Hernia Infiltration Mass Nodule Pleural_Thickening Pneumonia Pneumothorax".split())}  # fmt: skip


def test_the_published_tables_look_like_the_real_ones(nih: Path, shared_data: Path) -> None:
    for name in ("Data_Entry_2017_v2020.csv", "BBox_List_2017.csv"):
        real = (shared_data / "nih" / name).read_text().splitlines()
        drawn = (nih / name).read_text().splitlines()
        assert drawn[0] == real[0]
        assert drawn[1].count(",") == real[1].count(",")


def test_chexpert_tables_hold_only_published_values(chexpert: Path) -> None:
    root = chexpert / "CheXpert-v1.0-small"
    values: dict[str, Counter[str]] = {}
    for split in ("train", "valid"):
        lines = (root / f"{split}.csv").read_text().splitlines()
        assert lines[0] == (
            "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,"
            "Lung Lesion,Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,"
            "Fracture,Support Devices"
        )
        rows = list(csv.DictReader(lines))
        assert all((chexpert / row["Path"]).is_file() and f"/{split}/" in row["Path"] for row in rows)
        values[split] = Counter(row[name] for row in rows for name in list(row)[5:])
        assert {row["No Finding"] for row in rows} <= ({"1.0", ""} if split == "train" else {"1.0", "0.0"})
    assert set(values["train"]) == {"1.0", "0.0", "-1.0", ""}
    assert set(values["valid"]) == {"1.0", "0.0"}


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path, nih: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="holds something else"):
        write_nih(tmp_path, n_patients=2, seed=0, size=32, workers=0)
    with pytest.raises(InputError, match="other drawn X-rays"):
        write_nih(nih, n_patients=2, seed=0, size=32, workers=0)
    with pytest.raises(InputError, match="is a file"):
        write_chexpert(tmp_path / "thesis.txt", n_patients=2, seed=0, size=32, workers=0)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(("field", "value"), [("n_patients", 0), ("seed", -1), ("size", 8)])
def test_numbers_out_of_range_are_refused_by_name(tmp_path: Path, field: str, value: int) -> None:
    settings = {"n_patients": 2, "seed": 0, "size": 32, field: value}
    with pytest.raises(InputError, match=field):
        write_nih(tmp_path / "out", workers=0, **settings)
    assert not (tmp_path / "out").exists()


def test_the_two_datasets_differ_in_views_devices_and_grey_levels(nih: Path, chexpert: Path) -> None:
    share = {}
    for name, style in STYLES.items():
        cases = [case for patient in range(1, 120) for case in patient_cases(style, 0, patient)]
        share[name] = (np.mean([c.pose.view == "AP" for c in cases]), np.mean([bool(c.devices) for c in cases]))
    assert share["chexpert"][0] > share["nih"][0] + 0.25
    assert share["chexpert"][1] > share["nih"][1] + 0.15

    def spread(root: Path, pattern: str) -> float:
        levels = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in root.glob(pattern)]
        counts = sum(np.histogram(image, 16, (0, 256))[0] / image.size for image in levels if image is not None)
        return float(np.std(counts / len(levels)))

    # CheXpert's pictures are equalised: their grey levels are spread more evenly.
    assert spread(chexpert, "**/*.jpg") < 0.7 * spread(nih, "**/*.png")


@pytest.mark.parametrize("inner", [False, True])
def test_a_converter_of_published_data_names_drawn_pictures_as_drawn(
    nih: Path, chexpert: Path, tmp_path: Path, inner: bool
) -> None:
    """Also where CheXpert's images are named by their own folder, below the one that was drawn."""
    from shards.convert.config import ChexpertConfig, NihConfig
    from shards.convert.registry import plan

    out = str(tmp_path / "out")
    folder = chexpert / "CheXpert-v1.0-small" if inner else chexpert
    for config in (NihConfig(src=str(nih), out=out), ChexpertConfig(src=str(folder), out=out, valid_as="test")):
        found = plan(config)
        style = "nih" if isinstance(config, NihConfig) else "chexpert"
        assert found.name == f"phantom-{style}" and "drawn" in found.source and not found.about.licence
        boxes = found.extras["boxes.parquet"]
        assert len(boxes) and set(boxes["key"].to_pylist()) <= set(found.table["key"].to_pylist())  # pyright: ignore[reportIndexIssue]


def test_published_data_keep_their_name(nih: Path, tmp_path: Path) -> None:
    import shutil

    from shards.convert.config import NihConfig
    from shards.convert.registry import plan

    copy = shutil.copytree(nih, tmp_path / "nih")
    (copy / "phantom.json").unlink()
    found = plan(NihConfig(src=str(copy), out=str(tmp_path / "out")))
    assert found.name == "nih" and found.about.licence
