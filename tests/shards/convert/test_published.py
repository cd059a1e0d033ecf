"""Every converter on a set in its published layout: whole, the same again, and errors that name the place."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from jobs.cli import main, parse
from shards import InputError, ShardSet, read_card
from shards.convert.registry import CONVERTERS, plan
from shards.read.index import Index
from shards.verify import verify
from tests.shards.convert import layouts
from tests.shards.convert.conftest import make, picture, png
from tests.shards.convert.published import WRITERS, config, converted


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
