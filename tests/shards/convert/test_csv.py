from __future__ import annotations

import gzip
import sys
import unicodedata
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from shards import InputError, read_card
from shards.convert.config import CsvConfig
from shards.verify import verify
from tests.shards.convert.conftest import hashes, jpeg, make, picture, png, stored
from tests.shards.convert.test_dicom import TWELVE, dicom


def write_table(root: Path, lines: list[str], files: dict[str, bytes]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / "table.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


def config(root: Path, **changes) -> CsvConfig:
    settings = {"src": str(root), "out": str(root.parent / "out"), "table": "table.csv", "size": 32, "workers": 1}
    return CsvConfig(**(settings | changes))


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


NASTY = ["a.b.c.png", "with space.png", "Röntgen-Ä.png", "胸部.png", "x" * 150 + ".png", "semi;colon&.png"]


def test_odd_names_become_safe_unique_keys_and_keep_their_source(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    names = [*NASTY, "a-b-c.png", "a b c.png"]
    write_table(root, ["path,Mass", *(f'"{name}",1' for name in names)], {name: png(picture(1)) for name in names})
    index, rejects, _ = make(config(root))
    assert set(index.source) == set(names) and len(rejects) == 0
    assert index.key.str.fullmatch(r"[A-Za-z0-9_-]{1,80}").all() and index.key.is_unique


def test_paths_that_leave_the_source_are_rejects_and_nothing_outside_is_read(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    (tmp_path / "secret.png").write_bytes(png(picture(5)))
    lines = ["path,Mass", "ok.png,0", "../secret.png,1", f"{tmp_path}/secret.png,1", "sub/../../secret.png,1"]
    write_table(root, lines, {"ok.png": png(picture(1))})
    index, rejects, _ = make(config(root, max_rejects=0.8))
    assert index.source.tolist() == ["ok.png"]
    assert rejects.reason.tolist() == ["path leaves the source folder"] * 3


def test_absolute_and_dotted_paths_below_the_source_are_taken(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    lines = ["path,Mass", f"{root}/x.png,0", "./y.png,1", "d\\z.png,1"]
    write_table(root, lines, {name: png(picture(1)) for name in ("x.png", "y.png", "d/z.png")})
    assert sorted(make(config(root))[0].source) == ["d/z.png", "x.png", "y.png"]


def test_two_files_of_one_key_are_a_sample_and_a_reject(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    files = {"x.png": png(picture(1)), "x.jpg": jpeg(picture(2))}
    write_table(root, ["path,Mass", "x.png,0", "x.jpg,1"], files)
    index, rejects, _ = make(config(root, max_rejects=1.0))
    assert index.source.tolist() == ["x.png"] and index.label_mass.tolist() == [0]
    assert rejects.reason.tolist() == ["duplicate key x (taken by x.png)"]


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


def test_patients_written_as_numbers_with_blanks_are_the_patients_meant(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    ids = {"a": "1.0", "b": "1", "c": "nan", "d": "<NA>", "e": "None", "f": "NA", "g": "1.5"}
    write_table(root, ["path,who,Mass", *(f"{n}.png,{i},0" for n, i in ids.items())], {
        f"{n}.png": png(picture(1)) for n in ids
    })  # fmt: skip
    index = make(config(root, patient_column="who"))[0].set_index("key")
    assert index.patient_id.to_dict() == {"a": "1", "b": "1", "c": "c", "d": "d", "e": "e", "f": "f", "g": "1.5"}


def test_only_a_known_image_ending_is_cut_from_a_key(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    names = [f"1.2.840.113619.{n}" for n in range(6)] + ["1.2.840.7.PNG", "a.b.dcm.jpg"]
    write_table(root, ["path,Mass", *(f"{name},0" for name in names)], {name: png(picture(1)) for name in names})
    index, rejects, _ = make(config(root))
    assert len(index) == 8 and len(rejects) == 0 and index.key.is_unique


WRITTEN = {
    "semicolons": ("path;Mass;Age\nä.png;1;3,5\n".encode(), {"age_column": "Age"}),
    "tabs": ("path\tMass\nä.png\t1\n".encode(), {}),
    "latin-1": ("path,Mass\nä.png,1\n".encode("latin-1"), {}),
    "utf-16 as Excel writes it": ("path\tMass\r\nä.png\t1\r\n".encode("utf-16"), {}),
    "cp1252, said": ("path,Mass,what\nä.png,1,“x”\n".encode("cp1252"), {"encoding": "cp1252"}),
    "a delimiter, said": ("path:Mass\nä.png:1\n".encode(), {"delimiter": ":"}),
    "gzip": (gzip.compress("path,Mass\nä.png,1\n".encode(), mtime=0), {"table": "table.csv.gz"}),
    "yes and no": ("path,Mass\nä.png,Yes\n".encode(), {}),
    "two decimals": ("path,Mass\nä.png,1.00\n".encode(), {}),
    "bare names": ("path,Mass\nä,1\n".encode(), {"path_suffix": ".png"}),
    "blank cells beyond the header": ("path,Mass\nä.png,1,, \n".encode(), {}),
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_a_table_is_read_however_it_is_written(kind: str, tmp_path: Path) -> None:
    data, options = WRITTEN[kind]
    root = tmp_path / "mine"
    write_table(root, [], {"ä.png": png(picture(1))})
    (root / "table.csv").unlink()
    (root / options.get("table", "table.csv")).write_bytes(data)
    index = make(config(root, **options))[0]
    assert index.source.tolist() == ["ä.png"] and index.label_mass.tolist() == [1]


def test_a_dialect_that_had_to_be_found_is_told(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    write_table(root, [], {"ä.png": png(picture(1))})
    (root / "table.csv").write_bytes("path;Mass\nä.png;1\n".encode("latin-1"))
    assert "table.csv is read as latin-1 and with ';' between its cells" in make(config(root))[2]


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


def test_names_that_differ_in_case_or_unicode_form_are_said(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    write_table(root, ["path,Mass", "X.png,0", "a.png,0"], {name: png(picture(1)) for name in ("x.png", "a.png")})
    with pytest.raises(InputError, match="1 of them differ only in upper and lower case: .* 'X.png', .* 'x.png'"):
        make(config(root))
    nfd = unicodedata.normalize("NFD", "ä.png")
    write_table(tmp_path / "b", ["path,Mass", "ä.png,0"], {nfd: png(picture(1))})
    with pytest.raises(InputError, match="1 of them differ only in the Unicode form"):
        make(config(tmp_path / "b"))


def test_byte_order_mark_and_windows_line_ends_are_taken_as_they_come(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    write_table(root, [], {"x.png": png(picture(1))})
    (root / "table.csv").write_bytes(b"\xef\xbb\xbfpath,Mass\r\nx.png,1\r\n")
    assert make(config(root))[0].label_mass.tolist() == [1]


BAD_TABLES = {
    "no path column": ("file,Mass\nx.png,1\n", {}, "no column 'path'; its columns are file, Mass"),
    "no label": ("path,Colour\nx.png,red\n", {}, "no column is a known label"),
    "unknown mapped column": ("path,Mass\nx.png,1\n", {"labels": {"Weight": "mass"}}, "no column 'Weight'"),
    "bad label name": ("path,TB\nx.png,1\n", {"labels": {"TB": "T B!"}}, "must be lower case"),
    "one label twice": ("path,Effusion,Pleural Effusion\nx.png,1,1\n", {}, "both hold pleural_effusion"),
    "bad value": ("path,Mass\nx.png,maybe\n", {}, "line 2: Mass is 'maybe'"),
    "bad split": ("path,Mass,s\nx.png,1,later\n", {"split_column": "s"}, "line 2: split 'later'"),
    "no path": ("path,Mass\n ,1\n", {}, "line 2: column path is empty"),
    "short row": ("path,Mass\nx.png,1\nx.png\n", {}, "table.csv, line 3: 1 cells, the header has 2"),
    "open quote": ('path,Mass\n"x.png,1\nx.png,1\n', {}, "line 2 to 3 .a quotation mark left open.*1 cells"),
    "wide row": ("path,Mass,Edema\nx.png,a, b,1,0\n", {}, "line 2: 5 cells, the header has 3 .*needs quotation marks"),
    "a heading twice": ("path,Mass,Mass\nx.png,1,0\n", {}, "the heading 'Mass' heads columns 2 and 3"),
    "no rows": ("path,Mass\n", {}, "has no rows"),
    "empty file": ("", {}, "no column 'path'; its columns are \\(none\\)"),
}


@pytest.mark.parametrize("kind", BAD_TABLES)
def test_a_table_that_cannot_be_used_is_one_clear_error(kind: str, tmp_path: Path) -> None:
    text, options, message = BAD_TABLES[kind]
    write_table(tmp_path / "mine", [], {"x.png": png(picture(1))})
    (tmp_path / "mine" / "table.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        make(config(tmp_path / "mine", **options))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (b"path,Mass\n\x89PNG,1\n", {}, "is not a UTF-8 file .*--encoding"),
        (b"path,Mass\n\xe4\x00.png,1\n", {}, "is not a UTF-8 file"),
        (b"\xff\xfe\x00p\x00", {}, "is not a UTF-16 file"),
        ("path,Mass\nä.png,1\n".encode(), {"encoding": "ascii"}, "is not a ASCII file"),
        (b"path,Mass\nx.png,1\n", {"encoding": "klingon"}, "--encoding klingon: unknown"),
        (
            gzip.compress(b"path,Mass\nx.png,1\n" * 99, mtime=0)[:-12],
            {"table": "table.csv.gz"},
            "not a whole gzip file",
        ),
        (b"path,Mass\n", {"table": "table.csv.gz"}, "not a whole gzip file"),
    ],
)
def test_a_table_that_is_no_text_is_one_clear_error(data: bytes, options: dict, message: str, tmp_path: Path) -> None:
    write_table(tmp_path / "mine", [], {})
    (tmp_path / "mine" / options.get("table", "table.csv")).write_bytes(data)
    with pytest.raises(InputError, match=message):
        make(config(tmp_path / "mine", **options))


def test_a_table_that_does_not_exist_is_one_clear_error(tmp_path: Path) -> None:
    write_table(tmp_path / "mine", [], {})
    with pytest.raises(InputError, match="absent.csv: no such file"):
        make(config(tmp_path / "mine", table="absent.csv"))


def test_unlisted_files_are_counted_unless_told_otherwise(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    write_table(root, ["path,Mass", "x.png,1"], {"x.png": png(picture(1)), "y.png": png(picture(2))})
    with pytest.raises(InputError, match="1 image files have no row"):
        make(config(root))
    index, rejects, _ = make(config(root, check_unlisted=False))
    assert len(index) == 1 and len(rejects) == 0


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
