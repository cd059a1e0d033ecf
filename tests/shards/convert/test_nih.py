from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from shards import InputError, read_card
from shards.convert import cells
from shards.convert.config import NihConfig
from shards.convert.nih import LABELS, _splits, read_rows
from shards.convert.rows import first_of_each, gather
from shards.read.index import Index
from tests.shards.convert.conftest import NIH_2017, make, picture, png, write_nih


def test_a_source_without_studies_has_no_such_column(nih_config) -> None:
    index, _, _ = make(config := nih_config())
    card = read_card(config.out)
    assert "study_id" not in index.columns and card.studies == 0
    assert card.licence and "Wang" in card.citation and card.home.startswith("https://")
    assert Index.open(config.out).study_id(np.array([0, 1])).tolist() == [None, None]


@pytest.mark.parametrize(
    ("text", "years"),
    [
        ("058Y", 58),
        ("58", 58),
        ("58.0", 58),
        ("0.5", 0.5),
        ("060M", 5),
        ("001D", 1 / 365.25),
        ("006W", 42 / 365.25),
        ("411Y", None),
        ("411", None),
        ("", None),
        ("n/a", None),
        ("0", 0),
    ],
)
def test_ages_of_all_spellings_become_years(text: str, years: float | None) -> None:
    assert cells.age(text) == (None if years is None else pytest.approx(years))


def test_official_splits_keep_patients_together_and_test_as_listed(nih_config) -> None:
    config = nih_config(val_fraction=0.3)
    index, rejects, _ = make(config)
    assert len(index) == 24 and len(rejects) == 0
    assert index.groupby("patient_id")["split"].nunique().max() == 1
    assert sorted(index[index.split == "test"].patient_id.unique()) == ["5", "6"]
    assert set(index.split) == {"train", "val", "test"}
    assert index.sort_values(["split", "shard", "offset"]).key.tolist() == index.key.tolist()
    card = read_card(config.out)
    assert card.split_scheme == "official" and card.split_detail == {"val_fraction": 0.3, "seed": 0}
    assert card.counts["test"]["patients"] == 2


def test_list_splits_are_the_users_own(nih: Path, nih_config, tmp_path: Path) -> None:
    names = (nih / "train_val_list.txt").read_text().split()
    (tmp_path / "a.txt").write_text("\r\n".join(names[:8]) + "\r\n")
    (tmp_path / "b.txt").write_text("\n".join(names[8:12]))
    options = {"splits": "list", "train_list": str(tmp_path / "a.txt"), "val_list": str(tmp_path / "b.txt")}
    index, rejects, _ = make(nih_config(**options))
    assert index.groupby("split").size().to_dict() == {"train": 8, "val": 4}
    assert rejects.reason.tolist() == ["in none of the split lists"] * 12
    with pytest.raises(InputError, match="needs --train_list"):
        make(nih_config(splits="list", out="other"))
    with pytest.raises(InputError, match="8 images are in both"):
        make(nih_config(**(options | {"val_list": options["train_list"]}), out="other"))


def test_random_splits_need_no_lists(nih: Path, nih_config) -> None:
    (nih / "test_list.txt").unlink()
    with pytest.raises(InputError, match="no test_list.txt.*--splits random"):
        make(nih_config())
    index, _, _ = make(nih_config(splits="random", val_fraction=0.2, test_fraction=0.2, out="random"))
    assert index.groupby("patient_id")["split"].nunique().max() == 1
    assert set(index.split) == {"train", "val", "test"}


def test_several_findings_mark_several_labels_and_the_rest_is_negative(nih: Path, nih_config) -> None:
    table = nih / "Data_Entry_2017.csv"
    table.write_text(table.read_text().replace("No Finding", "Effusion|Infiltration|Pleural_Thickening", 1))
    index, _, _ = make(nih_config())
    row = index.set_index("key").loc["00000001_000"]
    positive = {name[6:] for name in index if name.startswith("label_") and row[name] == 1}
    assert positive == {"pleural_effusion", "infiltration", "pleural_thickening"}
    assert row.label_no_finding == 0
    rest = index[index.key != "00000001_000"]
    assert (rest.label_no_finding == 1).all() and (rest.label_mass == 0).all()


def test_unknown_finding_is_an_error_that_names_the_line(nih: Path, nih_config) -> None:
    table = nih / "Data_Entry_2017.csv"
    table.write_text(table.read_text().replace("No Finding", "Dragon", 1))
    with pytest.raises(InputError, match="line 2: unknown finding 'Dragon'"):
        make(nih_config())


VARIANTS = {
    "2017": (NIH_2017, "{name},Mass|Hernia,0,00000001,060M,F,AP,2682,2749,0.143,0.143,", "\n"),
    "2020": (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]",
        "{name},Mass|Hernia,0,1,5,F,AP,2682,2749,0.14300000000000002,0.14300000000000002",
        "\n",
    ),
    "kaggle sample": (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        "OriginalImageWidth,OriginalImageHeight,OriginalImagePixelSpacing_x,OriginalImagePixelSpacing_y",
        "{name},Mass|Hernia,0,00000001,060M,F,AP,2682,2749,0.143,0.143",
        "\r\n",
    ),
    "saved by a spreadsheet": ("\ufeff" + NIH_2017, '"{name}","Mass|Hernia",0,1,005Y,F,AP,2682,2749,0.1,0.1,', "\r\n"),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_of_the_table_reads_the_same(variant: str, tmp_path: Path) -> None:
    header, line, ending = VARIANTS[variant]
    path = tmp_path / "table.csv"
    path.write_bytes((ending.join([header, line.format(name="00000001_000.png")]) + ending).encode())
    (row,) = read_rows(path)
    assert (row.source, row.patient_id, row.age, row.sex, row.view) == ("00000001_000.png", "1", 5.0, "F", "AP")
    assert {name for name, value in row.labels.items() if value} == {"mass", "hernia"}


def test_missing_column_is_named_with_those_there(nih: Path, nih_config) -> None:
    table = nih / "Data_Entry_2017.csv"
    table.write_text(table.read_text().replace("Patient Age", "Age"))
    with pytest.raises(InputError, match="no column 'Patient Age'.*its columns are Image Index"):
        make(nih_config())


def test_cut_off_table_is_an_error_that_names_the_line(nih: Path, nih_config) -> None:
    table = nih / "Data_Entry_2017.csv"
    table.write_text(table.read_text()[: -len("058Y,M,PA,2682,2749,0.143,0.143,\n")])
    with pytest.raises(InputError, match="line 25"):
        make(nih_config())


def test_rows_and_files_that_do_not_match_are_counted_and_allow_missing_lists_them(nih: Path, nih_config) -> None:
    folder = nih / "images_001" / "images"
    (folder / "00000001_000.png").unlink()
    (folder / "00000002_001.png").unlink()
    (folder / "00000099_000.png").write_bytes(png(picture(9)))
    with pytest.raises(InputError, match="2 of 24 rows .* 1 image files have no row .*--allow_missing"):
        make(nih_config())
    assert not (nih.parent / "out").exists()
    index, rejects, _ = make(nih_config(allow_missing=True))
    assert len(index) + len(rejects) == 24 + 1
    assert rejects.source.tolist() == [
        "00000001_000.png",
        "00000002_001.png",
        "images_001/images/00000099_000.png",
    ]


def test_images_in_one_folder_or_behind_a_link_are_found(nih: Path, nih_config, tmp_path: Path) -> None:
    (nih / "images_001" / "images").rename(tmp_path / "elsewhere")
    (nih / "images_001").rmdir()
    (nih / "images").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(nih)
    index, rejects, _ = make(nih_config())
    assert len(index) == 24
    assert set(rejects.reason) <= {""} or rejects.reason.str.startswith("duplicate file name").all()


def test_boxes_keep_only_boxes_of_kept_images_under_their_canonical_label(nih: Path, nih_config) -> None:
    (nih / "BBox_List_2017.csv").write_text(
        "Image Index,Finding Label,Bbox [x,y,w,h],,,\n00000001_000.png,Infiltrate,225.5,547,86.25,79\n"
        "00000002_000.png,Mass,1,2,3,4\n00099999_000.png,Mass,1,2,3,4\n"
    )
    (nih / "images_001" / "images" / "00000002_000.png").write_bytes(b"not an image")
    config = nih_config(max_rejects=0.5)
    make(config)
    boxes = pd.read_parquet(Path(config.out) / "boxes.parquet")
    assert boxes.to_dict("records") == [
        {"key": "00000001_000", "label": "infiltration", "x": 225.5, "y": 547, "width": 86.25, "height": 79}
    ]
    assert "boxes.parquet" in read_card(config.out).files


def test_real_nih_files_convert_with_the_official_lists(shared_data: Path, tmp_path: Path) -> None:
    config = NihConfig(src=str(shared_data / "nih"), out=str(tmp_path / "out"), workers=1, allow_missing=True)
    index, rejects, _ = make(config)
    assert len(index) == 35 and len(index) + len(rejects) == 112_120
    assert (np.minimum(index.height, index.width) == 1024).all()
    row = index.set_index("key").loc["00000001_001"]
    assert (row.age, row.sex, row["view"], row.label_cardiomegaly, row.label_emphysema) == (58, "M", "PA", 1, 1)
    listed = set((shared_data / "nih" / "test_list.txt").read_text().split())
    assert set(index[index.split == "test"].key + ".png") == listed & set(index.key + ".png")
    card = read_card(config.out)
    assert 0.4 < card.mean < 0.6 and 0.15 < card.std < 0.35


def test_full_nih_tables_split_as_published(shared_data: Path) -> None:
    rows = gather(read_rows(shared_data / "nih" / "Data_Entry_2017_v2020.csv"), LABELS)
    assert rows.num_rows == 112_120 and first_of_each(rows["source"]).all()
    counts = Counter(_splits(NihConfig(src="", out=""), shared_data / "nih", rows).to_pylist())
    assert (
        set(counts) == {"train", "val", "test"}
        and counts["test"] == 25_596
        and counts["train"] + counts["val"] == 86_524
    )
    assert abs(counts["val"] - 8652) < 100


def test_real_small_nih_images_convert_including_rgba(shared_data: Path, tmp_path: Path) -> None:
    source = tmp_path / "src"
    source.mkdir()
    (source / "images").symlink_to(shared_data / "nih64" / "images")
    for name in ("Data_Entry_2017_v2020.csv", "train_val_list.txt", "test_list.txt"):
        (source / name).symlink_to(shared_data / "nih" / name)
    index, rejects, _ = make(
        NihConfig(src=str(source), out=str(tmp_path / "out"), size=64, workers=2, allow_missing=True)
    )
    assert len(index) == 1000 and len(index) + len(rejects) == 112_120
    assert index.groupby("patient_id")["split"].nunique().max() == 1


def test_source_folder_must_exist_and_hold_a_table(tmp_path: Path, nih_config) -> None:
    with pytest.raises(InputError, match="no such folder"):
        make(nih_config(src=str(tmp_path / "nowhere")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="Data_Entry_2017"):
        make(nih_config(src=str(tmp_path / "empty")))
    write_nih(tmp_path / "bare", patients=1, each=1)
    (tmp_path / "bare" / "images_001" / "images" / "00000001_000.png").unlink()
    with pytest.raises(InputError, match="no image to convert"):
        make(nih_config(src=str(tmp_path / "bare"), allow_missing=True))
