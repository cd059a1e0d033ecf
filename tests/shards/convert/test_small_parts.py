from __future__ import annotations

import os
from pathlib import Path

import pytest

from shards import FailedError
from shards.atomic import write_bytes, write_with
from shards.convert.sample import safe_key
from shards.convert.sources import find_files


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_bytes(path, [b"old"])

    def fail(temporary: Path) -> None:
        temporary.write_bytes(b"half")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        write_with(path, fail)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a"]


def test_a_full_device_is_told_as_such(tmp_path: Path) -> None:
    def fail(temporary: Path) -> None:
        with open("/dev/full", "wb") as full:
            full.write(b"x" * 100_000)

    with pytest.raises(FailedError, match="no space left to write"):
        write_with(tmp_path / "a", fail)


@pytest.mark.parametrize("name", ["00000001_000", "patient1_study1_view1_frontal", "a-b"])
def test_safe_names_stay_as_they_are(name: str) -> None:
    assert safe_key(name) == name


def test_unsafe_names_become_different_safe_ones() -> None:
    names = ["a.b", "a b", "a/b", "ä", "a", "", "...", "../a", "x" * 200, "x" * 201, "con\n", "日本"]
    keys = [safe_key(name) for name in names]
    assert len(set(keys)) == len(names)
    assert all(key and len(key) <= 80 and key.isascii() and "." not in key and "/" not in key for key in keys)


def test_hidden_and_mac_files_are_passed_over(tmp_path: Path) -> None:
    for name in ("a.png", "b/c.PNG", ".hidden/d.png", "__MACOSX/e.png", "._a.png", "f.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert find_files(tmp_path, (".png",)) == ["a.png", "b/c.PNG"]
