"""Checkpoints are complete or absent, and nothing but our own is ever loaded."""

import errno
import json
import os
from pathlib import Path

import pytest
import torch

from cxrdist.core import checkpoint
from cxrdist.core.checkpoint import CheckpointWarning
from cxrdist.errors import FailedError

STATE = {"model": {"w": torch.arange(6.0).view(2, 3)}, "progress": {"step": 1, "order_sha256": "ab"}}


def put(root: Path, step: int, signature: str = "mine") -> Path:
    return checkpoint.save(root, step, STATE, {"signature": signature})


def test_what_was_saved_is_what_is_loaded(tmp_path):
    put(tmp_path, 5)
    put(tmp_path, 12)
    state, meta = checkpoint.load_latest(tmp_path, "mine") or pytest.fail("nothing found")
    assert meta["step"] == 12 and torch.equal(state["model"]["w"], STATE["model"]["w"])
    assert checkpoint.steps(tmp_path) == [5, 12]
    assert checkpoint.load_latest(tmp_path / "absent", "mine") is None


def cut(folder: Path) -> None:
    os.truncate(folder / "state.pt", 100)


def flip_a_bit(folder: Path) -> None:
    data = bytearray((folder / "state.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "state.pt").write_bytes(data)


def lose_the_state(folder: Path) -> None:
    (folder / "state.pt").unlink()


def spoil_the_facts(folder: Path) -> None:
    (folder / "meta.json").write_text('{"step": 9')


def make_foreign(folder: Path) -> None:
    facts = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(facts | {"signature": "theirs"}))


@pytest.mark.parametrize("damage", [cut, flip_a_bit, lose_the_state, spoil_the_facts, make_foreign])
def test_a_damaged_or_foreign_checkpoint_is_skipped_for_the_one_before_it(tmp_path, damage):
    put(tmp_path, 4)
    damage(put(tmp_path, 8))
    with pytest.warns(CheckpointWarning, match="step-00000008.*trying an earlier one"):
        found = checkpoint.load_latest(tmp_path, "mine")
    assert found is not None and found[1]["step"] == 4
    put(tmp_path, 8)  # the resumed run gets there again and replaces the damaged one
    found = checkpoint.load_latest(tmp_path, "mine")
    assert found is not None and found[1]["step"] == 8


def test_a_pickle_that_would_run_code_is_not_opened(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "exploded"),))

    folder = put(tmp_path, 3)
    torch.save({"model": Bomb()}, folder / "state.pt")
    facts = json.loads((folder / "meta.json").read_text())
    facts |= {"size": (folder / "state.pt").stat().st_size, "sha256": checkpoint.file_sha256(folder / "state.pt")}
    (folder / "meta.json").write_text(json.dumps(facts))
    with pytest.warns(CheckpointWarning):
        assert checkpoint.load_latest(tmp_path, "mine") is None
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("fails_at", ["write", "fsync", "rename"])
def test_a_full_disk_keeps_the_earlier_checkpoint_and_leaves_nothing_behind(tmp_path, monkeypatch, fails_at):
    put(tmp_path, 4)

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    target = {"write": (torch, "save"), "fsync": (os, "fsync"), "rename": (os, "rename")}[fails_at]
    with monkeypatch.context() as patch:
        patch.setattr(*target, full)
        with pytest.raises(FailedError, match=r"step-00000008.*No space left"):
            put(tmp_path, 8)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000004"]
    assert checkpoint.load_latest(tmp_path, "mine") is not None


def test_the_newest_and_the_best_are_kept_and_leftovers_of_a_kill_are_cleared(tmp_path):
    for step in (1, 2, 3, 4, 5):
        put(tmp_path, step)
    checkpoint.prune(tmp_path, keep=2, best=2)
    assert checkpoint.steps(tmp_path) == [2, 4, 5]
    (tmp_path / ".tmp-step-00000006-99").mkdir()
    (tmp_path / ".old-step-00000001-99").mkdir()
    put(tmp_path, 6)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"step-0000000{i}" for i in (2, 4, 5, 6)]
