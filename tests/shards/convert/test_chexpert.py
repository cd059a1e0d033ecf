from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from shards import InputError, read_card
from shards.convert.config import ChexpertConfig
from shards.read.index import Index
from shards.verify import verify
from tests.shards.convert.conftest import jpeg, make, picture

HEADER = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,"
    "Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)
TRAIN = [
    ("patient00001/study1/view1_frontal.jpg", "Female,68,Frontal,AP", "1.0,,,,,,,,,0.0,,,,1.0"),
    ("patient00002/study2/view1_frontal.jpg", "Female,87,Frontal,PA", ",,-1.0,1.0,,-1.0,-1.0,,-1.0,,-1.0,,1.0,"),
    ("patient00002/study1/view2_lateral.jpg", "Female,83,Lateral,", ",,,1.0,,,-1.0,,,,,,1.0,"),
    ("patient00003/study1/view1_frontal.jpg", "Unknown,0,Frontal,LL", ",,,,,1.0,,,,0.0,,,,"),
    ("patient00004/study1/view1_frontal.jpg", "Male,41,Frontal,AP", ",,,,,1.0,,,,0.0,,,,"),
]
VALID = [
    (
        "patient64541/study1/view1_frontal.jpg",
        "Male,73,Frontal,AP",
        "0.0,1.0,1.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,1.0",
    )
]


def write_chexpert(root: Path, prefix: str = "CheXpert-v1.0-small") -> Path:
    for split, rows in (("train", TRAIN), ("valid", VALID)):
        lines = [HEADER] + [f"{prefix}/{split}/{path},{facts},{labels}" for path, facts, labels in rows]
        root.mkdir(parents=True, exist_ok=True)
        (root / f"{split}.csv").write_text("\n".join(lines) + "\n")
        for number, (path, _, _) in enumerate(rows):
            (root / split / path).parent.mkdir(parents=True, exist_ok=True)
            (root / split / path).write_bytes(jpeg(picture(number, 40, 48)))
    return root


def config(root: Path, **changes) -> ChexpertConfig:
    return ChexpertConfig(**{"src": str(root), "out": str(root.parent / "out"), "size": 32, "workers": 1, **changes})


def test_uncertain_and_blank_stay_apart_in_the_index(tmp_path: Path) -> None:
    index, rejects, _ = make(config(write_chexpert(tmp_path / "CheXpert-v1.0-small")))
    row = index.set_index("key").loc["patient00002_study2_view1_frontal"]
    assert row.label_cardiomegaly == -1 and row.label_fracture == 1 and row.label_lung_opacity == 1
    assert pd.isna(row.label_no_finding) and pd.isna(row.label_pneumonia)
    assert index.set_index("key").label_pneumothorax["patient00001_study1_view1_frontal"] == 0
    assert index.set_index("key").label_support_devices["patient00001_study1_view1_frontal"] == 1
    counts = read_card(tmp_path / "out").counts["train"]["labels"]["edema"]
    assert counts == {"positive": 2, "negative": 0, "uncertain": 1, "null": 1}


def test_studies_reach_index_member_and_card(tmp_path: Path) -> None:
    index, _, _ = make(config(write_chexpert(tmp_path / "c"), views="all"))
    assert index.set_index("key").study_id["patient00002_study1_view2_lateral"] == "patient00002_study1"
    assert read_card(tmp_path / "out").studies == 6
    opened = Index.open(tmp_path / "out")
    assert (
        opened.study_id().tolist()
        == index.study_id.tolist()
        == Index.open(tmp_path / "out", mapped=True).study_id().tolist()
    )
    assert verify(tmp_path / "out", workers=1) == []


def test_frontal_views_only_by_default_and_the_laterals_are_listed(tmp_path: Path) -> None:
    root = write_chexpert(tmp_path / "CheXpert-v1.0")
    index, rejects, _ = make(config(root))
    assert len(index) == 5 and rejects.reason.tolist() == ["lateral view (views=frontal)"]
    index, rejects, _ = make(config(root, views="all", out=str(tmp_path / "all")))
    assert len(index) == 6 and len(rejects) == 0
    assert (index["view"] == "LATERAL").sum() == 1


def test_facts_of_the_patient_are_read_and_odd_ones_are_null(tmp_path: Path) -> None:
    index = make(config(write_chexpert(tmp_path / "c")))[0].set_index("patient_id")
    assert (
        index["view"]["patient00001"] == "AP" and index.sex["patient00001"] == "F" and index.age["patient00001"] == 68
    )
    assert pd.isna(index["view"]["patient00003"]) and pd.isna(index.sex["patient00003"])


@pytest.mark.parametrize("prefix", ["CheXpert-v1.0", "some/where/else", "."])
def test_paths_need_not_begin_with_the_name_of_the_root(tmp_path: Path, prefix: str) -> None:
    index, _, _ = make(config(write_chexpert(tmp_path / "moved", prefix)))
    assert index.source.str.match(r"(train|valid)/patient\d+/").all()
    assert index.groupby("split").size().to_dict() == {"train": 4, "val": 1}


def test_the_folder_above_the_root_is_good_enough(tmp_path: Path) -> None:
    write_chexpert(tmp_path / "up" / "CheXpert-v1.0-small")
    assert len(make(config(tmp_path / "up"))[0]) == 5


def test_test_set_is_taken_where_it_is_there_with_labels_only(tmp_path: Path) -> None:
    root = write_chexpert(tmp_path / "c")
    path = "test/patient64741/study1/view1_frontal.jpg"
    (root / path).parent.mkdir(parents=True)
    (root / path).write_bytes(jpeg(picture(7)))
    (root / "test_labels.csv").write_text(f"Path,No Finding,Edema\n{path},0.0,1.0\n")
    index, _, told = make(config(root))
    assert any(line.startswith("test_labels.csv has no column for enlarged_cardiomediastinum") for line in told)
    row = index[index.split == "test"].iloc[0]
    assert row.label_edema == 1 and pd.isna(row.label_fracture) and pd.isna(row.sex)
    with pytest.raises(InputError, match="valid_as=test"):
        make(config(root, valid_as="test", out=str(tmp_path / "o2")))


def test_valid_may_serve_as_test_and_val_is_then_cut_from_train(tmp_path: Path) -> None:
    index, _, _ = make(config(write_chexpert(tmp_path / "c"), valid_as="test", val_fraction=0.3))
    assert index.groupby("split").size().to_dict() == {"test": 1, "train": 3, "val": 1}
    assert read_card(tmp_path / "out").split_detail == {"valid_as": "test", "val_fraction": 0.3, "seed": 0}


def test_an_image_without_a_row_and_a_row_without_image_are_counted(tmp_path: Path) -> None:
    root = write_chexpert(tmp_path / "c")
    (root / "train" / TRAIN[0][0]).rename(root / "train" / "patient00001" / "study1" / "view9_frontal.jpg")
    with pytest.raises(InputError, match="1 of 6 rows of train.csv \\+ valid.csv .* 1 image files have no row"):
        make(config(root))
    index, rejects, _ = make(config(root, allow_missing=True))
    assert len(index) + len(rejects) == 7


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("-1.0", "2.0", "line 3: Cardiomegaly is '2.0'"),
        ("patient00001/study1/view1_frontal.jpg", "p1.jpg", "line 2: path"),
        ("Path,", "File,", "no column 'Path'"),
        ("Lung Lesion", "Lung Leison", "train.csv: no column for lung_lesion; its columns are Path, .*Lung Leison"),
        ("Edema,", "Pulmonary Edema,Edema,", "line 2: .*cells"),
    ],
)
def test_values_that_cannot_be_are_errors_that_name_the_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    root = write_chexpert(tmp_path / "c")
    table = root / "train.csv"
    table.write_text(table.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        make(config(root))


def test_the_full_size_download_is_read_from_its_batch_folders(shared_data: Path, tmp_path: Path) -> None:
    src = shared_data / "cases" / "13-chexpert-batches" / "chexpertchestxrays-u20210408"
    index, rejects, _ = make(config(tmp_path, src=str(src), views="all"))
    assert len(index) == 26 and len(rejects) == 0
    assert index.groupby("split").size().to_dict() == {"train": 24, "val": 2}
    row = index.set_index("key").loc["patient00001_study1_view1_frontal"]
    assert row.source == "CheXpert-v1.0 batch 2 (train 1)/patient00001/study1/view1_frontal.jpg"
    assert (row.label_lung_lesion, row.label_pneumonia, row.label_pneumothorax) == (1, 0, 0)
    other = make(config(tmp_path, src=str(src), views="all", table="train_cheXbert.csv", out=str(tmp_path / "o2")))[0]
    row = other.set_index("key").loc["patient00001_study1_view1_frontal"]
    assert (row.label_lung_lesion, row.label_pneumonia, row.label_pneumothorax) == (1, 1, -1)


def test_batch_folders_are_recognised_by_their_names(tmp_path: Path) -> None:
    write_chexpert(tmp_path / "plain")
    first, second = "CheXpert-v1.0 batch 1 (validate & csv)", "CheXpert-v1.0 batch 3 (train 2)"
    (tmp_path / "full" / first).mkdir(parents=True)
    for name in ("train.csv", "valid.csv", "valid"):
        (tmp_path / "plain" / name).rename(tmp_path / "full" / first / name)
    (tmp_path / "plain" / "train").rename(tmp_path / "full" / second)
    index, rejects, _ = make(config(tmp_path / "full"))
    assert len(index) == 5 and index.groupby("split").size().to_dict() == {"train": 4, "val": 1}
    (tmp_path / "full" / first / "train.csv").unlink()
    (tmp_path / "full" / first / "valid.csv").unlink()
    with pytest.raises(InputError, match="none of the batch folders holds train.csv"):
        make(config(tmp_path / "full", out=str(tmp_path / "o2")))


def test_chexlocalize_is_read_with_its_own_names(tmp_path: Path) -> None:
    root = write_chexpert(tmp_path / "CheXpert")
    (root / "valid").rename(root / "val")
    (root / "valid.csv").rename(root / "val_labels.csv")
    table = root / "val_labels.csv"
    table.write_text(table.read_text().replace("/valid/", "/val/"))
    index = make(config(root))[0]
    assert index.groupby("split").size().to_dict() == {"train": 4, "val": 1}
    assert index[index.split == "val"].source.tolist() == [f"val/{VALID[0][0]}"]


def test_rows_of_one_image_that_contradict_are_an_error(tmp_path: Path) -> None:
    root = write_chexpert(tmp_path / "c")
    path, facts, labels = TRAIN[0]
    table = root / "train.csv"
    table.write_text(f"{table.read_text()}x/train/{path},{facts},{labels}\n")
    assert len(make(config(root))[0]) == 5  # a row that agrees is no news
    table.write_text(f"{table.read_text()}x/train/{path},{facts},0.0{labels[3:]}\n")
    with pytest.raises(
        InputError, match="train.csv: the rows of 1 image contradict each other .*no_finding is 0 and 1"
    ):
        make(config(root, out=str(tmp_path / "o2")))
