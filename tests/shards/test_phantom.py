"""The drawn X-rays: reproducible, true to their labels, and in the published layouts."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from shards import labels as names
from shards.errors import InputError
from shards.phantom import contact_sheet, write_chexpert, write_nih
from shards.phantom.case import CHEXPERT, NIH, STYLES, patient_cases
from shards.phantom.findings import DRAWINGS
from shards.phantom.labels import chexpert_labels, nih_label
from shards.phantom.render import render
from shards.phantom.sheet import sample_case

SIZE = 96


def _bytes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def nih(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantom") / "nih"
    write_nih(out, n_patients=14, seed=3, size=64, workers=0)
    return out


@pytest.fixture(scope="module")
def chexpert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantom") / "chexpert"
    write_chexpert(out, n_patients=14, seed=3, size=64, workers=0)
    return out


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


def _pair(name: str, seed: int, size: float, style: str = "nih") -> tuple[np.ndarray, np.ndarray, tuple]:
    """The same patient, exposure and grain without and with a finding."""
    without = render(sample_case(None, seed=seed), STYLES[style], 128, 128)
    with_it = render(sample_case(name, seed=seed, size=size), STYLES[style], 128, 128)
    return without.image.astype(float), with_it.image.astype(float), with_it.boxes


@pytest.mark.parametrize("name", sorted(DRAWINGS))
def test_every_finding_changes_the_picture_where_its_box_is(name: str) -> None:
    for seed in range(3):
        without, with_it, boxes = _pair(name, seed, 0.8)
        changed = np.abs(with_it - without)
        assert changed.max() > 12, f"{name} cannot be seen (seed {seed})"
        label, x, y, w, h = boxes[0]
        assert len(boxes) == 1 or name == "nodule"
        assert label == name
        assert 0 <= x < x + w <= 1 and 0 <= y < y + h <= 1
        inside = changed[int(y * 128) : int(np.ceil((y + h) * 128)), int(x * 128) : int(np.ceil((x + w) * 128))]
        assert inside.mean() > 1.5 * changed.mean(), f"{name}: the box misses the change (seed {seed})"


@pytest.mark.parametrize("name", ["pleural_effusion", "consolidation", "edema", "mass", "nodule", "pneumonia"])
def test_dense_findings_are_white_and_pneumothorax_is_black(name: str) -> None:
    without, with_it, ((_, x, y, w, h), *_) = _pair(name, 1, 0.8)
    box = np.s_[int(y * 128) : int((y + h) * 128) + 1, int(x * 128) : int((x + w) * 128) + 1]
    assert with_it[box].mean() > without[box].mean() + 4
    without, with_it, _ = _pair("pneumothorax", 1, 0.6)
    assert (without - with_it).max() > 20  # the space without vessels


def test_cardiomegaly_is_a_cardiothoracic_ratio_above_one_half() -> None:
    for seed in range(12):
        healthy = render(sample_case(None, seed=seed), NIH, 32, 32)
        large = render(sample_case("cardiomegaly", seed=seed, size=0.5), NIH, 32, 32)
        assert large.ctr > healthy.ctr + 0.1
        assert large.ctr > 0.5


def test_effusion_box_lies_at_the_base_and_pneumothorax_box_at_the_top() -> None:
    for seed in range(6):
        (fluid,) = render(sample_case("pleural_effusion", seed=seed, size=0.4), NIH, 128, 128).boxes
        (air,) = render(sample_case("pneumothorax", seed=seed, size=0.4), NIH, 128, 128).boxes
        assert fluid[2] + fluid[4] > 0.6
        assert air[2] < 0.35


def test_boxes_stand_at_the_same_place_at_every_picture_size() -> None:
    for name in ("mass", "pleural_effusion", "cardiomegaly"):
        small = render(sample_case(name, seed=2, size=0.9), NIH, 64, 64).boxes[0]
        large = render(sample_case(name, seed=2, size=0.9), NIH, 512, 512).boxes[0]
        np.testing.assert_allclose(small[1:], large[1:], atol=0.04)


def test_anatomy_stays_with_the_patient_and_chronic_findings_stay_in_place() -> None:
    seen_persistent = False
    for patient in range(1, 60):
        cases = patient_cases(NIH, 0, patient)
        assert len({case.anatomy for case in cases}) == 1
        assert [case.age for case in cases] == sorted(case.age for case in cases)
        for name in ("mass", "cardiomegaly", "hernia"):
            places = {f for case in cases for f in case.findings if f.name == name}
            assert len(places) <= 1
            seen_persistent |= bool(places) and len(cases) > 1
    assert seen_persistent


def test_two_pictures_of_a_patient_are_more_alike_than_two_patients() -> None:
    def small(case) -> np.ndarray:
        image = render(case, NIH, 64, 64).image.astype(np.float32)
        return (image - image.mean()) / image.std()

    pairs = [cases[:2] for p in range(1, 80) if len(cases := patient_cases(NIH, 1, p)) > 1][:24]
    images = [[small(case) for case in pair] for pair in pairs]
    own = np.mean([np.abs(a - b).mean() for a, b in images])
    other = np.mean([np.abs(images[i][0] - images[(i + 1) % len(images)][1]).mean() for i in range(len(images))])
    assert own < 0.93 * other


def test_labels_are_mostly_true_but_not_always() -> None:
    right = wrong = 0
    for patient in range(1, 300):
        for case in patient_cases(NIH, 0, patient):
            said = {names.canonical(part) for part in nih_label(case, NIH).split("|")} - {"no_finding"}
            true = {finding.name for finding in case.findings}
            right += len(said & true)
            wrong += len(said ^ true)
    assert 0.03 < wrong / (right + wrong) < 0.30


def test_expert_labels_are_the_truth() -> None:
    for patient in range(1, 60):
        for case in patient_cases(CHEXPERT, 0, patient):
            row = chexpert_labels(case, CHEXPERT, expert=True)
            true = {finding.name for finding in case.findings}
            for name in names.SHARED_NIH_CHEXPERT:
                assert row[name] == float(name in true)
            assert row["support_devices"] == float(bool(case.devices))


@pytest.mark.parametrize("style", ["nih", "chexpert"])
def test_small_sets_have_positives_of_every_shared_label(style: str) -> None:
    cases = [case for patient in range(1, 201) for case in patient_cases(STYLES[style], 0, patient)]
    found = Counter(finding.name for case in cases for finding in case.findings)
    for name in names.SHARED_NIH_CHEXPERT:
        assert 0.04 < found[name] / len(cases) < 0.35, name
    assert 0.2 < np.mean([not case.findings for case in cases]) < 0.7
    assert 2 < len(cases) / 200 < 3.5


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


def test_contact_sheet_shows_every_name_asked_for(tmp_path: Path) -> None:
    contact_sheet(tmp_path / "sheet.png", names=["healthy", "mass", "pacemaker"], size=64, boxes=True)
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet is not None and sheet.shape == (3 * 64, 4 * 64, 3)
    assert sheet.std() > 20


def test_devices_are_seen_and_set_the_support_devices_label() -> None:
    for device in ("pacemaker", "sternotomy", "clips", "leads", "endotracheal", "gastric", "line", "drain_left"):
        bare = render(sample_case(None, seed=5), CHEXPERT, SIZE, SIZE).image.astype(int)
        case = sample_case(None, seed=5, devices=[device])
        assert np.abs(render(case, CHEXPERT, SIZE, SIZE).image.astype(int) - bare).max() > 20, device
        assert chexpert_labels(case, CHEXPERT, expert=True)["support_devices"] == 1.0


def test_several_nodules_have_a_box_each() -> None:
    several = [
        boxes for seed in range(30) if len(boxes := render(sample_case("nodule", seed=seed), NIH, 128, 128).boxes) > 1
    ]
    assert several
    for boxes in several:
        assert all(w < 0.15 and h < 0.15 for _, _, _, w, h in boxes)
