"""`--track` is checked where a run is asked for, and is no part of what a run is."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from cxrdist.finetune import config as finetune
from cxrdist.pretrain import config as pretrain
from cxrdist.sweep import run as sweep
from cxrdist.sweep.config import SweepConfig
from results.tracking import beside


def test_an_unknown_tracker_is_refused_by_every_command_that_takes_one(tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    asked = [
        lambda: finetune.check(finetune.FinetuneConfig(shards="s", out=out, track="neptune")),
        lambda: pretrain.validate(pretrain.PretrainConfig(shards="s", out=out, track="mlfow")),
        lambda: sweep.run(SweepConfig(out=out, track="tensorboard")),
    ]
    for ask in asked:
        with pytest.raises(ValueError, match="is no tracker; there are mlflow, wandb") as refused:
            ask()
        assert getattr(refused.value, "exit_code", None) == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("module", [finetune, pretrain])
def test_where_numbers_are_sent_does_not_change_which_run_it_is(module) -> None:
    kind = finetune.FinetuneConfig if module is finetune else pretrain.PretrainConfig
    assert "track" in module.IGNORED_BY_SIGNATURE
    assert next(field for field in dataclasses.fields(kind) if field.name == "track").default is None


@pytest.mark.filterwarnings("ignore")
def test_a_pretraining_that_is_stopped_and_goes_on_is_one_run_with_its_own_losses(
    tmp_path: Path, make_run, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow: not installed here")
    pytest.importorskip("wandb", reason="wandb: not installed here")
    from cxrdist.pretrain import loop
    from tests.cxrdist.resume_worker import StopAfter

    class Stops(StopAfter):
        def install(self) -> Stops:
            return self

    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(beside, "GRACE_S", 120.0)
    monkeypatch.setattr(beside, "STOPPED_GRACE_S", 120.0)
    run = make_run(track="mlflow,wandb")
    ids = []
    for steps in (4, 10**9):
        monkeypatch.setattr(loop, "StopRequest", lambda steps=steps: Stops(steps))
        loop.main(run.path)
        noted = json.loads((run.path / "tracking.json").read_text())
        ids.append((noted["mlflow"]["id"], noted["wandb"]["id"]))
    assert run.is_done and ids[0] == ids[1]
    client = mlflow.tracking.MlflowClient()
    (found,) = client.search_runs([client.get_experiment_by_name("cxrdist").experiment_id])
    assert found.info.run_id == ids[0][0] and found.info.status == "FINISHED"
    assert found.data.params["global_batch"] == "16" and found.data.params["optim.lr"] == "0.1"
    sent = [(one.step, one.value) for one in client.get_metric_history(found.info.run_id, "loss")]
    assert sent == [(row["step"], row["loss"]) for row in run.read_log() if "loss" in row]
    assert [step for step, _ in sent] == list(range(1, 11)) and found.data.metrics["images_seen"] == 160
    written = sorted((run.path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(written) == 2 and {path.stem for path in written} == {f"run-{ids[0][1]}"}
