"""Runs mirrored from their files: what is sent, nothing twice, and what a tracker that fails means to the training."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from jobs import cli
from results.errors import InputError
from results.run import Run
from results.schema import read_metrics
from results.tracking import backends, beside, mirror
from tests.results import simulate


class Recorder:
    """A tracker that keeps what it is sent, for whoever looks at `sent`."""

    sent: dict[str, dict[str, Any]] = {}
    down = False

    def __init__(self, name: str, config: Any, tags: Any, run_id: str | None, place: Path) -> None:
        if Recorder.down:
            raise ConnectionError("no route to host")
        self.id = run_id or f"id{len(Recorder.sent)}"
        known = {"name": name, "config": dict(config), "tags": dict(tags), "rows": [], "final": None, "begun": 0}
        Recorder.sent.setdefault(self.id, known)["begun"] += 1

    def log(self, rows: Any) -> None:
        if Recorder.down:
            raise ConnectionError("no route to host")
        Recorder.sent[self.id]["rows"] += rows

    def finish(self, numbers: Any) -> None:
        Recorder.sent[self.id]["final"] = dict(numbers)

    def close(self) -> None:
        pass


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """What a recording tracker called mlflow was sent, by its run ids."""
    monkeypatch.setitem(mirror.TRACKERS, "mlflow", Recorder)
    monkeypatch.setattr(Recorder, "sent", {})
    monkeypatch.setattr(Recorder, "down", False)
    return Recorder.sent


def begun(folder: Path) -> Run:
    run = Run.create(folder, job="finetune", config={"seed": 3, "optim": {"lr": 0.1}}, signature="abc")
    run.log(1, loss=0.5, note="text", bad=float("nan"))
    return run


def test_configuration_and_numbers_are_sent_and_nothing_else(tmp_path: Path, sent: dict) -> None:
    begun(tmp_path / "run")
    assert mirror.Mirror(tmp_path, ["mlflow"]).sync()
    (found,) = sent.values()
    assert found["config"] == {"seed": 3, "optim.lr": 0.1} and found["tags"]["signature"] == "abc"
    assert found["rows"] == [(1, {"loss": 0.5})] and found["final"] is None


def test_a_later_process_goes_on_as_the_same_run_and_sends_nothing_twice(tmp_path: Path, sent: dict) -> None:
    run = begun(tmp_path / "run")
    mirror.Mirror(tmp_path, ["mlflow"]).sync()
    run.log(2, loss=0.4)
    run.finish(test_auroc=0.8, ended="end")
    for _ in range(3):
        assert mirror.Mirror(tmp_path, ["mlflow"]).sync()
    (found,) = sent.values()
    assert [step for step, _ in found["rows"]] == [1, 2] and found["begun"] == 2
    assert found["final"] == {"format_version": 1.0, "test_auroc": 0.8}


def test_a_half_written_line_is_sent_when_it_is_whole(tmp_path: Path, sent: dict) -> None:
    run = begun(tmp_path / "run")
    with run.metrics_log.open("a") as log:
        log.write('{"step": 2, "lo')
    follower = mirror.Mirror(tmp_path, ["mlflow"])
    follower.sync()
    with run.metrics_log.open("a") as log:
        log.write('ss": 0.25}\n')
    follower.sync()
    (found,) = sent.values()
    assert found["rows"][-1] == (2, {"loss": 0.25})


def test_a_tracker_that_is_down_is_told_once_and_gets_everything_later(tmp_path: Path, sent: dict) -> None:
    run, said = begun(tmp_path / "run"), []
    Recorder.down = True
    follower = mirror.Mirror(tmp_path, ["mlflow"], said.append)
    for step in range(2, 6):
        run.log(step, loss=1 / step)
        assert not follower.sync()
    assert len(said) == 1 and "no route to host" in said[0] and "training goes on" in said[0]
    Recorder.down = False
    assert follower.sync()
    (found,) = sent.values()
    assert [step for step, _ in found["rows"]] == [1, 2, 3, 4, 5]


def test_the_cells_of_a_sweep_are_a_run_each_with_their_test_metrics(tmp_path: Path, sent: dict) -> None:
    for seed in (0, 1):
        simulate.finetune(tmp_path / "cells", seed=seed, history=False, intervals=False)
    assert mirror.Mirror(tmp_path, ["mlflow"]).sync()
    assert len(sent) == 2
    for found in sent.values():
        assert 0 < found["final"]["test/phantom/macro/auroc"] < 1
        text = repr(found)
        assert "testp0" not in text and "test0000" not in text, "no patient and no key of a sample"


def test_unknown_trackers_and_those_that_are_not_installed_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="'neptune' is no tracker; there are mlflow, wandb"):
        backends.names("neptune")
    monkeypatch.setitem(backends.MODULES, "wandb", "no_such_module")
    with pytest.raises(InputError, match=r"wandb is not installed; pip install 'cxrdist\[wandb\]'"):
        backends.names("wandb")
    assert backends.names(None) == () and backends.names("") == ()


def test_numbers_by_study_do_not_take_the_place_of_those_by_image(tmp_path: Path) -> None:
    run = simulate.finetune(tmp_path, labels={"edema": 0.8}, levels=("image", "study"), history=False, intervals=False)
    rows = read_metrics(run.metrics).to_pylist()
    wanted = {row["level"]: row["value"] for row in rows if (row["label"], row["metric"]) == ("edema", "auroc")}
    found = mirror.final_numbers(run)
    assert found["test/phantom/edema/auroc"] == wanted["image"] != wanted["study"]
    assert found["test_study/phantom/edema/auroc"] == wanted["study"]


def test_the_command_refuses_what_cannot_be_sent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["track", str(tmp_path), "--to", "neptune"]) == 2
    assert "no tracker" in capsys.readouterr().err


def test_a_process_beside_that_cannot_start_does_not_stop_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(backends.MODULES, "mlflow", "no_such_module")
    trained = False
    with beside.tracked(tmp_path, "mlflow"):
        trained = True
    assert trained and "nothing is sent to mlflow" in capsys.readouterr().err


def test_a_process_beside_that_hangs_holds_a_stopped_run_for_its_grace_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hanging = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stdin=subprocess.PIPE)
    monkeypatch.setattr(beside, "_start", lambda folder, trackers: hanging)
    monkeypatch.setattr(beside, "STOPPED_GRACE_S", 0.2)
    began = time.monotonic()
    with beside.tracked(tmp_path, "mlflow"):
        pass
    assert hanging.poll() is not None and time.monotonic() - began < 60
    assert "sends the rest" in capsys.readouterr().err


def test_a_process_beside_a_run_that_is_done_has_the_longer_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = subprocess.Popen(
        [sys.executable, "-S", "-c", "import sys, time; sys.stdin.read(); time.sleep(0.5)"], stdin=subprocess.PIPE
    )
    monkeypatch.setattr(beside, "_start", lambda folder, trackers: slow)
    monkeypatch.setattr(beside, "STOPPED_GRACE_S", 0.0)
    with beside.tracked(tmp_path, "mlflow", lambda: True):  # a sweep, whose done.json is written later
        pass
    assert slow.returncode == 0


def test_a_run_that_another_process_is_sending_is_left_to_it(tmp_path: Path, sent: dict) -> None:
    run, said = begun(tmp_path / "run"), []
    follower = mirror.Mirror(tmp_path, ["mlflow"], said.append)
    with mirror._alone(run) as ours:
        assert ours and not follower.sync() and not follower.sync()
    assert not sent and said == [f"cxrdist: another process is sending {run.path} just now"]
    assert follower.sync() and len(sent) == 1


def test_lines_without_a_step_do_not_stop_what_comes_after_them(
    tmp_path: Path, sent: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(tmp_path / "run")
    monkeypatch.setattr(mirror, "BLOCK_BYTES", 100)
    run.metrics_log.write_text(12 * '{"note": 1}\n' + '{"step": 4, "loss": 0.5}\n')
    assert mirror.Mirror(tmp_path, ["mlflow"]).sync()
    (found,) = sent.values()
    assert found["rows"] == [(4, {"loss": 0.5})]


def test_what_gives_access_to_a_url_is_neither_sent_nor_printed(tmp_path: Path, sent: dict) -> None:
    places = ["https://me:secret@host/set?token=abc", "/data/what?/set@2"]
    Run.create(tmp_path / "run", job="finetune", config={"shards": places, "init": places[0]}, signature="abc")
    assert mirror.Mirror(tmp_path, ["mlflow"]).sync()
    (found,) = sent.values()
    assert found["config"] == {"shards": ["https://host/set", "/data/what?/set@2"], "init": "https://host/set"}
    error = "API request to http://me:secret@host:5000/api failed (https://host/x?sig=1)"
    assert backends.without_secrets(error) == "API request to http://host:5000/api failed (https://host/x)"
