"""The paths of a table and the files of its folder: which are taken, what their keys are, and what is refused."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from shards import InputError
from tests.shards.convert.conftest import jpeg, make, picture, png
from tests.shards.convert.own_tables import config, write_table

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


def test_only_a_known_image_ending_is_cut_from_a_key(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    names = [f"1.2.840.113619.{n}" for n in range(6)] + ["1.2.840.7.PNG", "a.b.dcm.jpg"]
    write_table(root, ["path,Mass", *(f"{name},0" for name in names)], {name: png(picture(1)) for name in names})
    index, rejects, _ = make(config(root))
    assert len(index) == 8 and len(rejects) == 0 and index.key.is_unique


def test_names_that_differ_in_case_or_unicode_form_are_said(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    write_table(root, ["path,Mass", "X.png,0", "a.png,0"], {name: png(picture(1)) for name in ("x.png", "a.png")})
    with pytest.raises(InputError, match="1 of them differ only in upper and lower case: .* 'X.png', .* 'x.png'"):
        make(config(root))
    nfd = unicodedata.normalize("NFD", "ä.png")
    write_table(tmp_path / "b", ["path,Mass", "ä.png,0"], {nfd: png(picture(1))})
    with pytest.raises(InputError, match="1 of them differ only in the Unicode form"):
        make(config(tmp_path / "b"))


def test_unlisted_files_are_counted_unless_told_otherwise(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    write_table(root, ["path,Mass", "x.png,1"], {"x.png": png(picture(1)), "y.png": png(picture(2))})
    with pytest.raises(InputError, match="1 image files have no row"):
        make(config(root))
    index, rejects, _ = make(config(root, check_unlisted=False))
    assert len(index) == 1 and len(rejects) == 0
