"""A table is read however it is written; one that cannot be read is one clear error."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from shards import InputError
from tests.shards.convert.conftest import make, picture, png
from tests.shards.convert.own_tables import config, write_table

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
