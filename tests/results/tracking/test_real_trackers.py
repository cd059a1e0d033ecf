"""The real clients: MLflow (a folder or a server), W&B offline; each skipped by name where it is not installed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from results.run import Run
from results.tracking import backends, beside
from results.tracking.mirror import Mirror


@pytest.fixture
def mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, with a store in a folder of the test's own."""
    module = pytest.importorskip("mlflow", reason="mlflow: not installed here")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return module


def begun(folder: Path) -> Run:
    run = Run.create(folder, job="finetune", config={"seed": 3, "optim": {"lr": 0.1}}, signature="abc")
    for step in (1, 2):
        run.log(step, loss=1 / step)
    return run


def resumed(run: Run, tracker: str) -> None:
    """What a second process finds and sends: a step again, one more, and the end."""
    run.log(2, loss=0.5)
    run.log(3, loss=0.25)
    run.finish(test_auroc=0.8)
    again = Mirror(run.path, [tracker])
    assert again.sync()
    again.close()


@pytest.mark.filterwarnings("ignore")
def test_mlflow_holds_one_run_with_parameters_history_and_the_final_numbers(tmp_path: Path, mlflow: Any) -> None:
    run = begun(tmp_path / "run")
    first = Mirror(run.path, ["mlflow"])
    assert first.sync()
    first.close()
    resumed(run, "mlflow")
    client = mlflow.tracking.MlflowClient()
    experiment = client.get_experiment_by_name("cxrdist")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.data.params == {"seed": "3", "optim.lr": "0.1"} and found.info.status == "FINISHED"
    assert found.data.metrics["test_auroc"] == 0.8 and found.data.tags["signature"] == "abc"
    assert [one.step for one in client.get_metric_history(found.info.run_id, "loss")] == [1, 2, 2, 3]


@pytest.mark.filterwarnings("ignore")
def test_a_setting_that_mlflow_would_refuse_neither_fails_nor_leaves_runs_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow: Any
) -> None:
    run = Run.create(tmp_path / "run", job="finetune", config={"by (label)": 3}, signature="abc")
    assert Mirror(run.path, ["mlflow"]).sync()
    client = mlflow.tracking.MlflowClient()
    held = client.get_experiment_by_name("cxrdist").experiment_id
    (found,) = client.search_runs([held])
    assert found.data.params == {"by _label_": "3"}
    other = Run.create(tmp_path / "other", job="finetune", config={"a": 1}, signature="def")
    monkeypatch.setattr(backends.MLflow, "_describe", lambda *words: 1 / 0)
    assert not Mirror(other.path, ["mlflow"], print).sync()
    assert len(client.search_runs([held])) == 1


@pytest.mark.filterwarnings("ignore")
def test_wandb_offline_writes_the_same_run_id_before_and_after_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="wandb: not installed here")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = begun(tmp_path / "run")
    first = Mirror(run.path, ["wandb"])
    assert first.sync()
    first.close()
    resumed(run, "wandb")
    folders = sorted((run.path / "wandb").glob("offline-run-*"))
    inside = {path.name for path in (run.path / "wandb").rglob("*")}
    assert not inside & {"requirements.txt", "wandb-metadata.json"}, "what is sent is settings and numbers"
    ids = {path.stem for folder in folders for path in folder.glob("run-*.wandb")}
    assert len(folders) == 2 and len(ids) == 1


@pytest.mark.filterwarnings("ignore")
def test_the_process_beside_a_training_sends_what_it_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow: Any
) -> None:
    run = begun(tmp_path / "run")
    monkeypatch.setattr(beside, "GRACE_S", 120.0)
    with beside.tracked(run.path, "mlflow"):
        run.log(3, loss=0.25)
        run.finish(test_auroc=0.8)
    client = mlflow.tracking.MlflowClient()
    (found,) = client.search_runs([client.get_experiment_by_name("cxrdist").experiment_id])
    assert found.info.status == "FINISHED" and found.data.metrics["loss"] == 0.25


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an MLflow server of the test's own, with a database in a file."""
    pytest.importorskip("mlflow", reason="mlflow: not installed here")
    for name in ("sqlalchemy", "alembic"):
        pytest.importorskip(name, reason=f"mlflow: mlflow-skinny has no server without {name}; pip install mlflow")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ["server", "--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db", "--host", "127.0.0.1"]
    with open(tmp_path / "server.log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *words, "--port", str(port), "--workers", "1"],
            stdout=log, stderr=log, start_new_session=True, cwd=tmp_path,
        )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 180
        while not _answers(f"{address}/health"):
            assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "server.log").read_text()
            time.sleep(0.5)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_local_mlflow_server_holds_one_run_over_a_resume(tmp_path: Path, server: str) -> None:
    import mlflow

    run = begun(tmp_path / "run")
    first = Mirror(run.path, ["mlflow"])
    assert first.sync()
    first.close()
    resumed(run, "mlflow")
    client: Any = mlflow.MlflowClient(tracking_uri=server)
    (found,) = client.search_runs([client.get_experiment_by_name("cxrdist").experiment_id])
    assert found.data.params == {"seed": "3", "optim.lr": "0.1"} and found.info.status == "FINISHED"
    assert found.data.metrics["test_auroc"] == 0.8
    assert [one.step for one in client.get_metric_history(found.info.run_id, "loss")] == [1, 2, 2, 3]
