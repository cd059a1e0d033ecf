"""Staged copies are whole, checked, and never half."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from shards import InputError, ShardSet
from shards.errors import FailedError
from shards.format import card_bytes
from shards.read import stage as staging
from shards.read import transfer
from shards.read.card import read_card
from shards.read.stage import stage
from shards.read.transfer import Source
from tests.shards.conftest import STAGE, Web, same_files


def test_none_reads_a_local_folder_where_it_is(folder: Path) -> None:
    assert stage(folder) == folder
    assert stage(f"file://{folder}") == folder


@pytest.mark.parametrize("mode", ["ram", "disk"])
def test_a_staged_copy_is_the_same_and_reads_the_same(folder: Path, cache: Path, mode: str) -> None:
    copy = stage(folder, mode, cache)
    assert copy != folder and same_files(copy, folder)
    staged = ShardSet(folder, "train", stage=mode, cache_dir=cache)
    assert staged.path == copy
    positions = np.arange(len(staged))
    assert torch.equal(staged.images(positions), ShardSet(folder, "train").images(positions))


def test_a_second_stage_copies_nothing(folder: Path, cache: Path, monkeypatch) -> None:
    copy = stage(folder, "disk", cache)
    monkeypatch.setattr(Source, "copy", None)
    assert stage(folder, "disk", cache) == copy


def test_ram_goes_to_shared_memory_and_disk_to_the_jobs_own_folder(folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(staging, "_RAM", tmp_path / "shm")
    (tmp_path / "shm").mkdir()
    monkeypatch.setenv("SLURM_TMPDIR", str(tmp_path / "node"))
    (tmp_path / "node").mkdir()
    for mode, parent in (("ram", "shm"), ("disk", "node")):
        copy = stage(folder, mode)
        assert copy.parent == tmp_path / parent / f"cxrdist-{os.getuid()}"
        assert copy.parent.stat().st_mode & 0o077 == 0  # patients' images: for nobody else's eyes


def test_shared_memory_that_is_absent_is_said(folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(staging, "_RAM", tmp_path / "nowhere")
    with pytest.raises(InputError, match="stage ram needs.*--stage disk"):
        stage(folder, "ram")


def test_a_folder_that_somebody_else_made_is_not_used(folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SLURM_TMPDIR", str(tmp_path))
    (tmp_path / "theirs").mkdir()
    (tmp_path / f"cxrdist-{os.getuid()}").symlink_to(tmp_path / "theirs")
    with pytest.raises(InputError, match="belongs to another user"):
        stage(folder, "disk")


def test_an_unknown_mode_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="none, ram, disk, got 'tape'"):
        stage(folder, "tape")


@pytest.mark.parametrize("remote", [False, True])
def test_a_flipped_byte_is_found_and_the_file_not_kept(folder: Path, cache: Path, web: Web, remote: bool) -> None:
    tar = folder / "train-000002.tar"
    content = bytearray(tar.read_bytes())
    content[len(content) // 2] ^= 1
    tar.write_bytes(content)
    with pytest.raises(InputError, match="train-000002.tar does not have the sha256 on the card"):
        stage(f"{web.url}/set" if remote else folder, "disk", cache)
    (copy,) = cache.iterdir()
    assert not (copy / tar.name).exists() and not (copy / "dataset.json").exists()
    assert not list(copy.glob(".*.tmp"))
    content[len(content) // 2] ^= 1
    tar.write_bytes(content)
    assert same_files(stage(folder, "disk", cache), folder)


def test_a_copy_cut_short_later_is_made_whole_again(folder: Path, cache: Path) -> None:
    copy = stage(folder, "disk", cache)
    (copy / "train-000000.tar").write_bytes(b"cut")
    (copy / "test-000000.tar").unlink()
    assert stage(folder, "disk", cache) == copy
    assert same_files(copy, folder)


def test_a_changed_source_is_another_copy(folder: Path, cache: Path, make_set, tmp_path: Path) -> None:
    make_set(tmp_path / "other" / "set", seed=1)
    assert stage(folder, "disk", cache) != stage(tmp_path / "other" / "set", "disk", cache)


def test_too_little_room_is_said_before_anything_is_copied(folder: Path, cache: Path, monkeypatch) -> None:
    usage = staging.shutil.disk_usage(folder)
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda path: usage._replace(free=60_000_000))
    with pytest.raises(InputError, match="0.06 GB free, staging needs 0.07 GB.*--stage disk"):
        stage(folder, "ram", cache)
    (copy,) = cache.iterdir()
    assert [path.name for path in copy.iterdir()] == [".locks"]


def test_a_disk_that_fills_up_leaves_no_half_file(folder: Path, cache: Path, monkeypatch) -> None:
    monkeypatch.setattr(transfer, "_PIECE", 1000)
    real = transfer.write_bytes

    def write(path: Path, pieces) -> None:
        def until_full():
            for number, piece in enumerate(pieces):
                if number == 3:
                    raise OSError(28, "No space left on device")
                yield piece

        real(path, until_full() if path.suffix == ".tar" else pieces)

    monkeypatch.setattr(transfer, "write_bytes", write)
    with pytest.raises(FailedError, match="no space left"):
        stage(folder, "disk", cache)
    (copy,) = cache.iterdir()
    assert not list(copy.glob("*.tar")) and not list(copy.glob(".*.tmp")) and not (copy / "dataset.json").exists()


@pytest.mark.parametrize("name", ["../outside.tar", "/etc/passwd", ".hidden", "a/b.tar"])
def test_a_card_that_names_files_elsewhere_is_not_trusted(folder: Path, cache: Path, name: str) -> None:
    card = read_card(folder)
    entries = ({**card.shards[0], "name": name}, *card.shards[1:])
    (folder / "dataset.json").write_bytes(card_bytes(dataclasses.replace(card, shards=entries)))
    with pytest.raises(InputError, match="dataset.json is damaged"):
        stage(folder, "disk", cache)
    assert not cache.exists()


def test_a_killed_process_leaves_a_copy_that_the_next_one_completes(folder: Path, cache: Path) -> None:
    slow = "import time; import shards.read.stage, shards.read.transfer as s; s._PIECE = 512; real = s.Local.open\n" + (
        "def sleepy(self, name):\n    print(name, flush=True); time.sleep(0.4); return real(self, name)\n"
        "s.Local.open = sleepy\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", slow + STAGE, str(folder), str(cache)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(4):
        process.stdout.readline()
    process.kill()
    process.wait()
    process.stdout.close()
    (copy,) = cache.iterdir()
    assert not (copy / "dataset.json").exists()
    assert same_files(stage(folder, "disk", cache), folder) and stage(folder, "disk", cache) == copy


def test_the_copy_says_nothing_of_where_it_came_from(folder: Path, cache: Path) -> None:
    copy = stage(folder, "disk", cache)
    assert json.loads((copy / "dataset.json").read_text()) == json.loads((folder / "dataset.json").read_text())
