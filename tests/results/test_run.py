"""A run is a folder: identity, creation, resuming, logs."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from results.errors import InputError
from results.identity import signature
from results.run import Run

CONFIG = {"lr": 0.1, "epochs": 3, "cache": None, "optim": {"name": "sgd", "fused": True}, "labels": ("edema", "mass")}


def make(path: Path, **changes) -> Run:
    config = CONFIG | changes
    return Run.create(path, job="finetune", config=config, signature=signature(config, ["epochs"]))


def test_signature_is_the_same_after_the_config_went_through_toml(tmp_path: Path) -> None:
    run = make(tmp_path / "run", rate=3.0)
    assert signature(run.read_config(), ["epochs"]) == run.read_info()["signature"]


def test_new_run_is_private_and_records_where_it_came_from(tmp_path: Path) -> None:
    run = make(tmp_path / "deep" / "run")
    assert stat.S_IMODE(os.stat(run.path).st_mode) == 0o700
    info = run.read_info()
    assert info["job"] == "finetune" and info["command"] and info["host"]
    assert {"python", "numpy", "pyarrow"} <= set(info["versions"])
    assert "environ" not in json.dumps(info)
    assert run.read_config() == {"lr": 0.1, "epochs": 3, "optim": CONFIG["optim"], "labels": ["edema", "mass"]}


def test_same_signature_is_the_same_run_and_takes_over_what_does_not_change_the_result(tmp_path: Path) -> None:
    first = make(tmp_path / "run")
    created = first.read_info()
    second = make(tmp_path / "run", epochs=9)
    assert second.read_info() == created
    assert second.read_config()["epochs"] == 9


def test_datasets_are_noted_apart_from_the_signature_and_an_unfinished_run_of_before_takes_them_up(
    tmp_path: Path,
) -> None:
    before = make(tmp_path / "run").read_info()
    facts = {"name": "nih", "licence": "free"}
    identity = signature(CONFIG, ["epochs"])
    run = Run.create(tmp_path / "run", job="finetune", config=CONFIG, signature=identity, datasets={"a" * 64: facts})
    assert run.read_info() == before | {"datasets": {"a" * 64: facts}}
    again = Run.create(tmp_path / "run", job="finetune", config=CONFIG, signature=identity, datasets={"a" * 64: {}})
    assert again.read_info() == run.read_info(), "what was noted first stays"


def test_finished_run_is_returned_untouched(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    run.finish(wall_seconds=np.float64(2.5), score=float("nan"))
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    again = make(tmp_path / "run", epochs=9)
    assert again.is_done and again.read_done()["wall_seconds"] == 2.5 and again.read_done()["score"] is None
    assert {path.name: path.read_bytes() for path in run.path.iterdir()} == before


def test_folder_of_another_run_or_of_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    make(tmp_path / "run")
    with pytest.raises(InputError, match="holds another run"):
        make(tmp_path / "run", lr=0.5)
    assert Run(tmp_path / "run").read_config()["lr"] == 0.1
    foreign = tmp_path / "photos"
    foreign.mkdir()
    (foreign / "cat.jpg").write_bytes(b"cat")
    with pytest.raises(InputError, match=r"cat\.jpg"):
        make(foreign)
    assert [path.name for path in foreign.iterdir()] == ["cat.jpg"]
    with pytest.raises(InputError, match="is a file"):
        make(foreign / "cat.jpg")


def test_a_refusal_names_what_differs_there_and_here(tmp_path: Path) -> None:
    make(tmp_path / "run")
    with pytest.raises(
        InputError, match=r"holds another run \(lr is 0\.1 there, 0\.5 here; cache is None there, \"x\" here\)"
    ):
        make(tmp_path / "run", lr=0.5, cache="x")
    with pytest.raises(InputError, match="it is a finetune, this is a pretrain"):
        Run.create(tmp_path / "run", job="pretrain", config=CONFIG, signature="0" * 12)
    with pytest.raises(InputError, match="lr is 0.1 there, 0.3 here") as refused:
        changed = CONFIG | {"lr": 0.3, "epochs": 9}
        Run.check(tmp_path / "run", job="finetune", signature="1" * 12, config=changed, ignore=["epochs"])
    assert "epochs" not in str(refused.value)
    shards = {"/sets/nih": "a" * 64}
    Run.create(tmp_path / "data", job="finetune", config=CONFIG, signature="0" * 12, shards=shards)
    with pytest.raises(InputError, match="/sets/nih has hash aaaaaaaaaaaa there, bbbbbbbbbbbb here"):
        shards = {"/sets/nih": "b" * 64}
        Run.create(tmp_path / "data", job="finetune", config=CONFIG, signature="1" * 12, shards=shards)


def test_only_a_start_that_made_nothing_is_discarded(tmp_path: Path) -> None:
    make(tmp_path / "run").discard()
    assert not (tmp_path / "run").exists()
    begun = make(tmp_path / "begun")
    begun.log(1, loss=0.5)
    begun.discard()
    assert begun.info.is_file()
    queued = make(tmp_path / "queued")
    queued.submission.mkdir()
    queued.discard()
    assert queued.info.is_file()


def test_a_file_that_cannot_be_removed_yet_does_not_hide_why_a_start_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On NFS an open lock stays until it is closed."""
    run, unlink = make(tmp_path / "run"), os.unlink

    def busy(path: str, *words: Any, **more: Any) -> None:
        if str(path).endswith(".lock"):
            raise OSError(errno.EBUSY, "Device or resource busy")
        unlink(path, *words, **more)

    with run.alone():
        monkeypatch.setattr(os, "unlink", busy)
        run.discard()
    assert not run.info.exists(), "the name is free again"


def test_a_held_run_is_told_from_one_that_stopped(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    assert not run.is_held()
    with run.alone():
        assert run.is_held()
    assert not run.is_held()


def test_folder_with_only_its_submission_becomes_a_run(tmp_path: Path) -> None:
    (tmp_path / "run" / "submission").mkdir(parents=True)
    assert make(tmp_path / "run").info.is_file()


def test_creation_that_was_killed_before_its_config_is_completed(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    run.config.unlink()
    (run.path / ".tmp-1234-config.toml").write_text("half")
    assert make(tmp_path / "run").read_config()["lr"] == 0.1


def test_unwritable_place_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file is a file, not a folder|cannot make the run folder"):
        make(tmp_path / "file" / "run")


def test_log_survives_a_line_cut_by_a_kill_and_steps_logged_twice(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    run.log(1, loss=np.float32(2.0))
    run.log(2, loss=float("inf"))
    run.log(2, val_loss=5.0)
    with open(run.metrics_log, "a") as file:
        file.write('{"step": 3, "lo')
    resumed = Run(run.path)
    resumed.log(2, loss=1.5)
    resumed.log(3, loss=1.0)
    assert resumed.read_log() == [
        {"step": 1, "loss": 2.0},
        {"step": 2, "loss": 1.5},
        {"step": 2, "val_loss": 5.0},
        {"step": 3, "loss": 1.0},
    ]


def test_damaged_run_files_are_named(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    run.info.write_text("{")
    with pytest.raises(InputError, match=r"run\.json is damaged"):
        run.read_info()
    with pytest.raises(InputError, match="not a run folder"):
        Run.open(tmp_path)


def test_dataclass_configs_are_plain_values(tmp_path: Path) -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Head:
        width: int = 128

    config = {"head": Head(), "out": tmp_path}
    run = Run.create(tmp_path / "run", job="pretrain", config=config, signature=signature(config, ["out"]))
    assert run.read_config() == {"head": {"width": 128}, "out": str(tmp_path)}


def test_of_runs_created_at_once_one_signature_wins_and_the_others_are_refused(tmp_path: Path) -> None:
    def attempt(number: int) -> str:
        try:
            return str(make(tmp_path / "run", lr=float(number % 2)).read_config()["lr"])
        except InputError as error:
            assert "holds another run" in str(error)
            return "refused"

    with ThreadPoolExecutor(max_workers=8) as pool:
        outcomes = list(pool.map(attempt, range(16)))
    winner = Run(tmp_path / "run").read_config()["lr"]
    assert set(outcomes) == {str(winner), "refused"} and outcomes.count("refused") == 8
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["config.toml", "run.json"]


def test_second_process_that_would_train_the_same_run_is_refused_in_one_line(tmp_path, monkeypatch):
    run = Run(tmp_path)
    with run.alone():
        with pytest.raises(InputError, match="is being trained by another process; start it once$"), run.alone():
            raise AssertionError("both train")
        monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")  # srun -n4 cxrdist pretrain ...
        with pytest.raises(InputError, match="srun started this command 4 times"), run.alone():
            raise AssertionError("both train")
    with run.alone():
        pass
