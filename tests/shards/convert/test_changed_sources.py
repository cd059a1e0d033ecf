"""A source file changed in place is noticed: made again on a resume, told on a finished set."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from shards import InputError
from shards.convert.config import MedmnistConfig
from shards.convert.engine import convert
from shards.convert.registry import plan
from tests.shards.convert.conftest import hashes, make, picture, png, write_nih


def quiet(line: str) -> None:
    """Takes lines meant for the user."""


def repaint(path: Path, seed: int = 999) -> None:
    """Another picture in the same file, of the same time where `os.utime` can do it but for one nanosecond."""
    before = path.stat()
    path.write_bytes(png(picture(seed)))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


@pytest.fixture
def pictures(nih: Path) -> list[Path]:
    """All pictures of the source."""
    return sorted((nih / "images_001" / "images").iterdir())


def test_a_resume_makes_tars_of_changed_files_again(nih_config, pictures: list[Path]) -> None:
    part = nih_config(part="0/2")
    convert(plan(part), part, say=quiet)
    for number, path in enumerate(pictures[::5]):
        repaint(path, 500 + number)
    told: list[str] = []
    config = nih_config()
    convert(plan(config), config, say=told.append)
    assert any("source files changed since the conversion began" in line for line in told)
    whole = nih_config("whole")
    make(whole)
    assert hashes(Path(config.out)) == hashes(Path(whole.out))


def test_a_resume_makes_chunks_of_changed_files_again(tmp_path: Path, nih_config, monkeypatch) -> None:
    write_nih(tmp_path / "big", patients=30, each=8)
    settings = {"src": str(tmp_path / "big"), "shard_size": 200}
    config = nih_config(**settings)
    done = 0

    class Killed(BaseException):
        pass

    from shards.convert import engine

    real = engine.run_chunk

    def dying(job):
        nonlocal done
        done += 1
        if done == 4:
            raise Killed
        return real(job)

    monkeypatch.setattr(engine, "run_chunk", dying)
    with pytest.raises(Killed):
        make(config)
    monkeypatch.undo()
    left = sorted(path.name for path in (Path(config.out) / ".work").glob("t*"))
    assert left == ["test-000000.json", "train-000000.0000"]  # a finished tar and a finished chunk
    for path in sorted((tmp_path / "big" / "images_001" / "images").iterdir())[::40]:
        repaint(path)
    make(config)
    whole = nih_config("whole", **settings)
    make(whole)
    assert hashes(Path(config.out)) == hashes(Path(whole.out))


def test_files_copied_again_cost_time_and_no_byte(nih: Path, nih_config, pictures: list[Path]) -> None:
    whole = nih_config("whole")
    make(whole)
    part = nih_config(part="1/2")
    convert(plan(part), part, say=quiet)
    for path in pictures:
        os.utime(path, (1, 1))
    config = nih_config()
    make(config)
    assert hashes(Path(config.out)) == hashes(Path(whole.out))


def test_a_merge_of_parts_that_changed_since_is_refused_until_they_are_made_again(nih_config, pictures) -> None:
    for number in range(2):
        part = nih_config(part=f"{number}/2")
        convert(plan(part), part, say=quiet)
    repaint(pictures[0])
    with pytest.raises(InputError, match=r"source files of 1 finished tars changed since .*run the parts again"):
        make(nih_config(merge=True))
    for number in range(2):
        part = nih_config(part=f"{number}/2")
        convert(plan(part), part, say=quiet)
    make(nih_config(merge=True))
    whole = nih_config("whole")
    make(whole)
    assert hashes(Path(part.out)) == hashes(Path(whole.out))


def test_a_finished_set_of_files_that_changed_since_is_told_and_left_as_it_is(nih_config, pictures) -> None:
    config = nih_config()
    make(config)
    before = hashes(Path(config.out))
    pictures[7].write_bytes(png(picture(999)))
    message = rf"is complete, but 1 of its 24 sources changed .*{pictures[7].name}.*convert again.*touch .*dataset.json"
    with pytest.raises(InputError, match=message):
        make(config)
    assert hashes(Path(config.out)) == before
    (Path(config.out) / "dataset.json").touch()
    _, _, told = make(config)
    assert told == [f"{config.out} is complete already: 24 samples"]


def test_a_source_replaced_by_an_older_file_is_warned_of(tmp_path: Path, nih_config, pictures: list[Path]) -> None:
    old = tmp_path / "old.png"
    old.write_bytes(png(picture(999)))
    os.utime(old, (1, 1))
    config = nih_config()
    make(config)
    os.replace(old, pictures[7])
    _, _, told = make(config)
    assert told[0].startswith("WARNING: 1 sources were replaced") and pictures[7].name in told[0]


def test_a_file_that_vanished_since_is_told_by_the_table(nih_config, pictures: list[Path]) -> None:
    config = nih_config()
    make(config)
    pictures[3].unlink()
    with pytest.raises(InputError, match="1 of 24 rows .* have no image file"):
        make(config)


def test_another_npz_of_the_same_labels_is_converted_anew(tmp_path: Path) -> None:
    def write(seed: int) -> None:
        rng = np.random.default_rng(seed)
        arrays: dict[str, np.ndarray] = {}
        for split, n in {"train": 9, "val": 3, "test": 3}.items():
            arrays[f"{split}_images"] = rng.integers(0, 256, (n, 28, 28)).astype(np.uint8)
            arrays[f"{split}_labels"] = (np.arange(n) % 2).astype(np.uint8)[:, None]
        np.savez(tmp_path / "pneumoniamnist.npz", **arrays)  # type: ignore[arg-type]

    settings = {"src": str(tmp_path / "pneumoniamnist.npz"), "shard_size": 3, "workers": 1}
    write(1)
    part = MedmnistConfig(out=str(tmp_path / "out"), part="0/2", **settings)
    convert(plan(part), part, say=quiet)
    write(2)
    resumed = MedmnistConfig(out=str(tmp_path / "out"), **settings)
    make(resumed)
    whole = MedmnistConfig(out=str(tmp_path / "whole"), **settings)
    make(whole)
    assert hashes(Path(resumed.out)) == hashes(Path(whole.out))
    write(3)
    with pytest.raises(InputError, match="15 of its 15 sources changed since it was made"):
        make(whole)
