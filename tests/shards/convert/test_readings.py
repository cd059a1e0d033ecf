"""Several rows of one image become one sample: boxes are united, readers voted on, contradictions refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from shards import InputError
from tests.shards.convert.conftest import make, picture, png
from tests.shards.convert.own_tables import config, write_table


def test_rows_of_one_image_that_agree_are_one_sample_and_no_reject(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    lines = ["path,who,Mass,Edema", "x.png,7,1,", "y.png,8,0,0", "x.png,7.0,1,-1", "x.png,,1,-1"]
    write_table(root, lines, {"x.png": png(picture(1)), "y.png": png(picture(2))})
    index, rejects, _ = make(config(root, patient_column="who"))
    row = index.set_index("source").loc["x.png"]
    assert len(index) == 2 and len(rejects) == 0
    assert (row.label_mass, row.label_edema, row.patient_id) == (1, -1, "7")


def test_rows_of_one_image_that_contradict_are_one_error_that_counts_and_names_them(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    lines = ["path,who,Mass", "x.png,7,1", "y.png,8,0", "x.png,7,0", "y.png,9,0", "z.png,1,0"]
    write_table(root, lines, {name: png(picture(1)) for name in ("x.png", "y.png", "z.png")})
    with pytest.raises(InputError, match=r"rows of 2 images contradict.*x.png: mass is 0 and 1.*y.png: patient_id is"):
        make(config(root, patient_column="who"))
    with pytest.raises(InputError, match=r"rows of 1 image contradict.*y.png: patient_id is"):
        make(config(root, patient_column="who", readers="any"))  # readers join labels, not patients
    assert make(config(root, readers="any"))[0].set_index("source").label_mass.to_dict() == {
        "x.png": 1, "y.png": 0, "z.png": 0,
    }  # fmt: skip


def test_rows_per_box_of_a_findings_column_are_united(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    lines = ["path,found", "x.png,Mass", "x.png,Edema", "x.png,Mass", "y.png,No Finding"]
    write_table(root, lines, {"x.png": png(picture(1)), "y.png": png(picture(2))})
    index = make(config(root, findings_column="found"))[0].set_index("source")
    assert index.loc["x.png", ["label_mass", "label_edema", "label_no_finding"]].tolist() == [1, 1, 0]
    write_table(root, [*lines, "y.png,Edema"], {})
    with pytest.raises(InputError, match="y.png: no_finding and edema"):
        make(config(root, findings_column="found", out=str(tmp_path / "o2")))


@pytest.mark.parametrize(
    ("readers", "mass", "edema", "free"), [("majority", 1, 0, 0), ("any", 1, 1, 0), ("all", 0, 0, 1)]
)
def test_boxes_of_several_readers_are_united_by_reader_and_then_voted_on(
    readers: str, mass: int, edema: int, free: int, tmp_path: Path
) -> None:
    root = tmp_path / "mine"
    lines = [
        "path,found,who",
        "x.png,Mass,R1",
        "x.png,Mass,R1",
        "x.png,Edema,R1",
        "x.png,Mass,R2",
        "x.png,No Finding,R3",
    ]
    write_table(root, lines, {"x.png": png(picture(1))})
    row = make(config(root, findings_column="found", reader_column="who", readers=readers))[0].iloc[0]
    assert (row.label_mass, row.label_edema, row.label_no_finding) == (mass, edema, free)


def test_readers_of_a_findings_column_need_to_be_named(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    write_table(root, ["path,found", "x.png,Mass"], {"x.png": png(picture(1))})
    with pytest.raises(InputError, match="--reader_column"):
        make(config(root, findings_column="found", readers="any"))
