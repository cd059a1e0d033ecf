"""A benchmark's lists in place of a set's own splits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import pytest

from jobs import cli
from shards import InputError, read_card
from shards.convert.config import ChexpertConfig, CsvConfig, KermanyConfig, NihConfig
from shards.convert.vindr import Config as VindrConfig
from tests.shards.convert.conftest import make
from tests.shards.convert.layouts import write_chexpert, write_own, write_vindr


@pytest.fixture
def listed(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Writes a list a split and returns the options that name them."""

    def write(ending: str = ".txt", **lists: Sequence[str]) -> dict[str, str]:
        for split, lines in lists.items():
            (tmp_path / f"{split}_list{ending}").write_text("\n".join(lines) + "\n")
        return {f"{split}_list": str(tmp_path / f"{split}_list{ending}") for split in lists}

    return write


def names(patients: Sequence[int], visits: Sequence[int] = (0, 1, 2, 3), ending: str = ".png") -> list[str]:
    """Names of the images that `write_nih` writes."""
    return [f"{patient:08d}_{visit:03d}{ending}" for patient in patients for visit in visits]


def with_labels(lines: Sequence[str]) -> list[str]:
    return [f"{line} 0 0 1 0 0 0 0 0 0 0 0 0 0 0" for line in lines]


def test_lists_of_chexnet_and_the_same_as_csv_or_bare_names_are_one_scheme(nih_config, listed, tmp_path) -> None:
    parts = {"train": [1, 4, 6], "val": [2], "test": [3, 5]}
    layouts = [
        listed(**{split: with_labels(names(who)) for split, who in parts.items()}),
        listed(".csv", **{s: ["Labels,Image Index", *(f"x,{n}" for n in names(w))] for s, w in parts.items()}),
        listed(".lst", **{split: [f"images/{name}" for name in names(who, ending="")] for split, who in parts.items()}),
    ]
    schemes = []
    for number, options in enumerate(layouts):
        config = nih_config(splits="list", split_name="chexnet", out=f"out{number}", **options)
        index, rejects, _ = make(config)
        card = read_card(config.out)
        assert index.groupby("split").size().to_dict() == {"test": 8, "train": 12, "val": 4} and not len(rejects)
        assert set(index[index.split == "val"].patient_id) == {"2"}
        schemes.append(card.split_scheme)
        assert card.split_detail["val_list"]["names"] == 4 and len(card.split_detail["val_list"]["sha256"]) == 64
        assert card.config["train_list"] == Path(options["train_list"]).name and card.config["split_name"] == "chexnet"
    assert schemes[0] == schemes[1] and schemes[0].startswith("chexnet-") and len(schemes[0]) == len("chexnet-") + 8
    assert cli.main(["verify", str(tmp_path / "out0")]) == 0


def test_other_lists_of_the_same_name_are_another_scheme_and_images_in_none_are_left_out(nih_config, listed) -> None:
    first = nih_config(splits="list", out="a", **listed(train=names([1, 2]), test=names([3])))
    make(first)
    second = nih_config(splits="list", out="b", **listed(train=names([1]), test=names([3])))
    index, rejects, _ = make(second)
    schemes = [read_card(config.out).split_scheme for config in (first, second)]
    assert schemes[0] != schemes[1] and all(scheme.startswith("list-") for scheme in schemes)
    assert len(index) == 8 and rejects.reason.tolist() == ["in none of the split lists"] * 16


def test_patients_in_two_lists_are_refused_with_their_number_and_names_unless_allowed(nih_config, listed) -> None:
    options = listed(train=[*names([1, 2, 3], [0, 1]), *names([4])], test=[*names([1, 2, 3], [2, 3]), *names([6])])
    with pytest.raises(InputError, match=r"3 patients would be in both train and test \(first: 1, 2, 3\)") as refusal:
        make(nih_config(splits="list", **options))
    assert "--allow_shared_patients true" in str(refusal.value)
    config = nih_config(splits="list", allow_shared_patients=True, **options)
    _, _, told = make(config)
    assert read_card(config.out).shared_patients == {"train/test": 3}
    assert sum("3 patients are in both train and test" in line for line in told) == 1


def test_images_of_a_list_that_are_not_there_are_refused_or_reported(nih_config, listed) -> None:
    options = listed(train=names([1, 2]), test=[*names([3]), "99999999_000.png", "99999999_001.png"])
    with pytest.raises(InputError, match=r"test_list.txt: 2 of its 6 names are no image of .*99999999_000, 9999") as no:
        make(nih_config(splits="list", **options))
    assert "--allow_missing true goes on without them" in str(no.value)
    index, rejects, told = make(nih_config(splits="list", allow_missing=True, **options))
    assert len(index) == 12 and any("2 of its 6 names are no image" in line for line in told)
    gone = rejects[rejects.reason == "listed in test_list.txt, but not there"]
    assert gone.source.tolist() == ["99999999_000", "99999999_001"]


def test_an_image_in_two_lists_an_empty_list_and_an_unknown_column_are_refused(nih_config, listed) -> None:
    with pytest.raises(InputError, match="4 images are in both .*train_list.txt and .*test_list.txt"):
        make(nih_config(splits="list", **listed(train=names([1, 2]), test=names([2, 3]))))
    with pytest.raises(InputError, match="test_list.txt names no image"):
        make(nih_config(splits="list", **listed(train=names([1]), test=[""])))
    with pytest.raises(InputError, match=r"none of its columns \(key, split\) is known to hold names of images"):
        make(nih_config(splits="list", **listed(".csv", train=["key,split", "a,train"])))
    with pytest.raises(InputError, match="train_list.txt: no such file"):
        make(nih_config(splits="list", train_list="train_list.txt"))


def test_names_that_are_unique_only_with_their_folders_are_found_below_a_dataset_folder(tmp_path, listed) -> None:
    write_chexpert(tmp_path / "src")
    own, _, _ = make(ChexpertConfig(src=str(tmp_path / "src"), out=str(tmp_path / "own"), size=32, workers=1))
    patients = sorted(own.patient_id.unique())
    cut = {"train": own[own.patient_id.isin(patients[:-2])], "test": own[own.patient_id.isin(patients[-2:])]}
    lists = listed(**{split: [f"CheXpert-v1.0-small/{path}" for path in rows.source] for split, rows in cut.items()})
    config = ChexpertConfig(src=str(tmp_path / "src"), out=str(tmp_path / "out"), size=32, workers=1, **lists)
    index, _, _ = make(config)
    assert dict(zip(index.source, index.split, strict=True)) == {
        source: split for split, rows in cut.items() for source in rows.source
    }


def test_bare_ids_of_dicom_files_are_found_and_boxes_of_images_left_out_are_gone(tmp_path, listed) -> None:
    write_vindr(tmp_path / "src")
    common = {"src": str(tmp_path / "src"), "size": 32, "workers": 1}
    own, _, _ = make(VindrConfig(out=str(tmp_path / "own"), **common))
    ids = [Path(source).stem for source in own.source]
    lists = listed(train=[f"{name}.png" for name in ids[:4]], test=ids[4:6])
    config = VindrConfig(out=str(tmp_path / "out"), **common, split_name="benchx", **lists)
    index, _, _ = make(config)
    assert index.groupby("split").size().to_dict() == {"test": 2, "train": 4}
    boxes = pd.read_parquet(tmp_path / "out" / "boxes.parquet")
    whole = pd.read_parquet(tmp_path / "own" / "boxes.parquet")
    assert len(boxes) == whole.key.isin(index.key).sum() and set(boxes.key) <= set(index.key)
    assert read_card(config.out).split_scheme.startswith("benchx-")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (NihConfig(src="s", out="o", train_list="a"), "need --splits list, not official"),
        (NihConfig(src="s", out="o", splits="list", test_list="a"), "splits=list needs --train_list"),
        (KermanyConfig(src="s", out="o", split_name="x"), "--split_name and --allow_shared_patients belong to"),
        (KermanyConfig(src="s", out="o", train_list="a", split_name="A b"), "--split_name 'A b': lower-case letters"),
        (CsvConfig(src="s", out="o", table="t", train_list="a", split_column="split"), "exclude each other"),
    ],
)
def test_options_that_do_not_go_together_are_refused(config, message) -> None:
    with pytest.raises(InputError, match=message):
        config.check()


def test_own_tables_take_lists_too_and_a_set_without_them_keeps_its_settings(tmp_path, listed) -> None:
    write_own(tmp_path / "src")
    common = {"src": str(tmp_path / "src"), "table": "table.csv", "size": 32, "workers": 1, "patient_column": "patient"}
    common |= {"path_column": "file", "path_prefix": "images/", "path_suffix": ".png"}
    plain = CsvConfig(out=str(tmp_path / "own"), **common)
    assert not {"train_list", "val_list", "test_list", "split_name", "allow_shared_patients"} & set(plain.recorded())
    lists = listed(train=[f"{number:03d}" for number in range(16)], test=[f"{number:03d}" for number in range(16, 20)])
    index, rejects, _ = make(CsvConfig(out=str(tmp_path / "out"), **common, **lists))
    assert index.groupby("split").size().to_dict() == {"test": 4, "train": 16} and len(rejects) == 12
