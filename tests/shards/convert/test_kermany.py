from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from shards import InputError, read_card
from shards.convert.config import KermanyConfig
from shards.convert.kermany import person
from tests.shards.convert.conftest import jpeg, make, picture


def write_kermany(root: Path) -> Path:
    files = [f"train/NORMAL/IM-{n:04d}-0001.jpeg" for n in range(10)]
    files += [f"train/PNEUMONIA/person{n}_{'virus' if n % 2 else 'bacteria'}_{n}.jpeg" for n in range(20)]
    files += ["val/NORMAL/NORMAL2-IM-1427-0001.jpeg", "val/PNEUMONIA/person1946_bacteria_4874.jpeg"]
    files += ["test/NORMAL/IM-0001-0001.jpeg", "test/PNEUMONIA/person3_virus_15.jpeg"]
    for number, name in enumerate(files):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(jpeg(picture(number)))
    return root


def config(root: Path, **changes) -> KermanyConfig:
    return KermanyConfig(**{"src": str(root), "out": str(root.parent / "out"), "size": 32, "workers": 1, **changes})


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("train/PNEUMONIA/person1_bacteria_2.jpeg", ("person1", "bacteria")),
        ("train/PNEUMONIA/person1438_virus_2469_1.jpeg", ("person1438", "virus")),
        ("train/NORMAL/IM-0115-0001.jpeg", ("IM-0115", None)),
        ("train/NORMAL/NORMAL2-IM-0423-0001-0002.jpeg", ("NORMAL2-IM-0423", None)),
        ("train/PNEUMONIA/VIRUS-1008087-0001.jpeg", ("1008087", "virus")),
        ("train/NORMAL/NORMAL-1003233-0001.jpeg", ("1003233", None)),
        ("train/NORMAL/mine.jpeg", (None, None)),
    ],
)
def test_person_and_cause_are_read_from_the_name(name: str, found: tuple) -> None:
    assert person(name) == found


def test_merged_puts_val_into_train_and_keeps_test_and_says_how_many_persons_are_shared(tmp_path: Path) -> None:
    index, _, told = make(config(write_kermany(tmp_path / "chest_xray")))
    assert index.groupby("split").size().to_dict() == {"test": 2, "train": 26, "val": 6}
    val = index[index.split == "val"]
    assert val.label_pneumonia.sum() == 4  # floor(0.2 * 21) of the sick, floor(0.2 * 11) of the others
    assert index[index.source.str.startswith("val/")].split.isin(["train", "val"]).all()
    homes = index.groupby("patient_id")["split"].agg(set)
    shared = int(homes.map(lambda home: {"train", "test"} <= home).sum())
    assert read_card(tmp_path / "out").shared_patients.get("train/test", 0) == shared
    assert any("WARNING" in line and "patients are in both" in line for line in told)


def test_patient_scheme_shares_no_person(tmp_path: Path) -> None:
    index, _, told = make(config(write_kermany(tmp_path / "chest_xray"), splits="patient"))
    assert index.groupby("patient_id")["split"].nunique().max() == 1
    assert not any("WARNING" in line for line in told)
    for split in ("train", "val", "test"):
        assert index[index.split == split].label_pneumonia.nunique() == 2
    assert read_card(tmp_path / "out").split_scheme == "patient"


def test_merged_by_person_keeps_test_and_has_no_person_in_train_and_val(tmp_path: Path) -> None:
    root = write_kermany(tmp_path / "chest_xray")
    for n in range(20):
        (root / f"train/PNEUMONIA/person{n}_bacteria_{100 + n}.jpeg").write_bytes(jpeg(picture(100 + n)))
    index, _, _ = make(config(root, splits="merged_by_person", val_fraction=0.3))
    assert set(index[index.split == "test"].source) == {s for s in index.source if s.startswith("test/")}
    rest = index[index.split != "test"]
    assert rest.groupby("patient_id")["split"].nunique().max() == 1
    assert rest.groupby("split").label_pneumonia.nunique().to_dict() == {"train": 2, "val": 2}
    assert "train/val" not in read_card(tmp_path / "out").shared_patients


def test_virus_and_bacteria_are_labels_of_their_own(tmp_path: Path) -> None:
    index = make(config(write_kermany(tmp_path / "chest_xray")))[0].set_index("source")
    labels = ["label_pneumonia", "label_bacterial_pneumonia", "label_viral_pneumonia"]
    assert index.loc["test/PNEUMONIA/person3_virus_15.jpeg", labels].tolist() == [1, 0, 1]
    assert index.loc["train/PNEUMONIA/person2_bacteria_2.jpeg", labels].tolist() == [1, 1, 0]
    assert index.loc["train/NORMAL/IM-0001-0001.jpeg", labels].tolist() == [0, 0, 0]


def test_cause_is_null_where_the_name_does_not_tell(tmp_path: Path) -> None:
    root = write_kermany(tmp_path / "chest_xray")
    (root / "train/PNEUMONIA/mine.jpeg").write_bytes(jpeg(picture(3)))
    index, _, told = make(config(root))
    row = index.set_index("source").loc["train/PNEUMONIA/mine.jpeg"]
    assert row.label_pneumonia == 1 and pd.isna(row.label_viral_pneumonia)
    assert any("1 file names give no person id" in line for line in told)


def test_one_name_in_two_folders_gives_two_samples(tmp_path: Path) -> None:
    index, rejects, _ = make(config(write_kermany(tmp_path / "chest_xray")))
    assert {"train_NORMAL_IM-0001-0001", "test_NORMAL_IM-0001-0001"} <= set(index.key)
    assert len(rejects) == 0


def test_the_archive_of_kaggle_is_understood_with_its_doubled_folder(tmp_path: Path) -> None:
    write_kermany(tmp_path / "up" / "chest_xray")
    write_kermany(tmp_path / "up" / "chest_xray" / "chest_xray")
    (tmp_path / "up" / "chest_xray" / "__MACOSX" / "train").mkdir(parents=True)
    (tmp_path / "up" / "chest_xray" / "train" / "NORMAL" / ".DS_Store").write_bytes(b"x")
    assert len(make(config(tmp_path / "up"))[0]) == 34
    with pytest.raises(InputError, match="no train/NORMAL"):
        make(config(tmp_path))


def test_full_set_counts_of_the_merged_scheme_are_those_published() -> None:
    from shards.convert.kermany import _merged

    files = [f"train/NORMAL/IM-{n:04d}-0001.jpeg" for n in range(1341)] + [f"val/NORMAL/{n}.jpeg" for n in range(8)]
    files += [f"train/PNEUMONIA/person{n}_virus_1.jpeg" for n in range(3875)]
    files += [f"val/PNEUMONIA/{n}.jpeg" for n in range(8)] + [f"test/NORMAL/{n}.jpeg" for n in range(624)]
    split_of = pd.Series(_merged(files, KermanyConfig(src="", out="")))
    assert split_of.value_counts().to_dict() == {"train": 4187, "val": 1045, "test": 624}


def test_real_kermany_files_convert_and_shared_persons_are_recorded(shared_data: Path, tmp_path: Path) -> None:
    index, rejects, told = make(
        KermanyConfig(src=str(shared_data / "chest_xray"), out=str(tmp_path / "out"), size=32, workers=2)
    )
    assert len(index) == 5840 and len(rejects) == 0
    assert index.groupby("split").size().to_dict() == {"test": 624, "train": 4173, "val": 1043}
    card = read_card(tmp_path / "out")
    assert card.counts["test"]["labels"]["pneumonia"]["positive"] == 390
    trained = set(index[index.source.str.startswith("train")].patient_id)
    tested = set(index[index.split == "test"].patient_id)
    assert len({name for name in trained & tested if name.startswith("person")}) == 170
    assert set(card.shared_patients) == {"train/val", "train/test", "val/test"}


def test_shared_persons_are_counted_over_what_became_samples(tmp_path: Path) -> None:
    from shards.verify import verify

    root = write_kermany(tmp_path / "chest_xray")
    (root / "test/PNEUMONIA/person3_virus_15.jpeg").write_bytes(b"not an image")
    make(config(root, max_rejects=0.5))
    assert verify(tmp_path / "out", workers=1) == []
