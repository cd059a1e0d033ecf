"""The loop of a trial: stopping and resuming, patience, weight decay, what it shows."""

from __future__ import annotations

import io
import sys

import pytest
import safetensors.torch
import torch

from cxrdist.finetune import classifier, loop
from cxrdist.finetune import trial as finetuning
from cxrdist.finetune.config import FinetuneConfig
from cxrdist.finetune.loop import Stopped
from results.run import Run
from tests.cxrdist.finetuning import StopAfter, trained, trial


@pytest.mark.parametrize("mode", ["full", "two_stage"])
def test_a_stopped_trial_ends_with_the_bits_of_an_unbroken_one(tmp_path, blobs, mode):
    changes = {"mode": mode, "head": {"kind": "mlp", "hidden": 8}, "min_steps": 16, "epochs": 1, "head_epochs": 1}
    whole = trained(tmp_path / "whole", blobs, **changes)
    config, run = trial(tmp_path / "broken", blobs, **changes)
    stops = 0
    while not run.is_done:
        try:
            finetuning.run_trial(config, run, StopAfter(3))
        except Stopped:
            stops += 1
    assert stops >= 3
    first, second = (safetensors.torch.load_file(r.model) for r in (whole, run))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert whole.read_log() == run.read_log()


def backbone_moved(run: Run, config: FinetuneConfig) -> bool:
    """Whether the model's backbone differs from the one that the trial began with."""
    began = classifier.build(config, ("pneumonia",), (0.5, 0.25)).backbone.state_dict()
    now = safetensors.torch.load_file(run.model)
    return any(not torch.equal(value, now[f"backbone.{name}"]) for name, value in began.items() if value.ndim > 1)


def test_patience_is_each_stages_own_and_the_stage_of_the_kept_weights_is_recorded(tmp_path, blobs, monkeypatch):
    """A head that stops gaining ends its own stage only; the layers are trained for all that."""
    scores = iter([0.9, 0.8, 0.8, 0.5, 0.6, 0.5, 0.5])  # stage 1 gains once, stage 2 twice; then two without
    monkeypatch.setattr(loop, "macro_auroc", lambda *_: next(scores))
    changes = {"mode": "two_stage", "epochs": 40, "head_epochs": 20, "eval_steps": 2, "patience": 2, "min_steps": 1}
    config, run = trial(tmp_path / "first", blobs, **changes)
    finetuning.run_trial(config, run)
    done = run.read_done()
    assert (done["best_stage"], done["val_auroc"], done["best_step"]) == (1, 0.9, 2)
    assert done["steps"] == 3 * 2 + 4 * 2 and done["ended"] == "early stopping"
    assert not backbone_moved(run, config)
    scores = iter([0.9, 0.8, 0.8, 0.95, 0.9, 0.9])
    config, run = trial(tmp_path / "second", blobs, **changes)
    finetuning.run_trial(config, run)
    assert (run.read_done()["best_stage"], run.read_done()["val_auroc"]) == (2, 0.95)
    assert backbone_moved(run, config)


def test_every_optimiser_has_a_weight_decay_of_its_own_and_records_it(tmp_path, blobs):
    """AdamW's 1e-2 inside Adam or SGD is another penalty by far: they add it to the gradient."""
    for name, decay in (("adamw", 1e-2), ("sgd", 1e-4), ("adam", 0.0)):
        config, run = trial(tmp_path / name, blobs, optim={"name": name})
        assert run.read_config()["optim"]["weight_decay"] == config.optim.weight_decay == decay
    config, _ = trial(tmp_path / "own", blobs, optim={"name": "adam", "weight_decay": 1e-3})
    assert config.optim.weight_decay == 1e-3


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_a_bar_and_a_log_a_line_a_validation(tmp_path, blobs, monkeypatch, caplog):
    terminal = _Terminal()
    with monkeypatch.context() as patched, caplog.at_level("INFO", "cxrdist.finetune"):
        patched.setattr(sys, "stderr", terminal)
        trained(tmp_path / "bar", blobs, epochs=2, min_steps=6, n_boot=0)
    shown = terminal.getvalue()
    assert "fine-tuning" in shown and "10/10" in shown and "val_auroc=" in shown
    assert not [record for record in caplog.records if "val AUROC" in record.message]
    with caplog.at_level("INFO", "cxrdist.finetune"):
        run = trained(tmp_path / "log", blobs, epochs=2, min_steps=6, n_boot=0)
    lines = [record.message for record in caplog.records if "val AUROC" in record.message]
    looked = [row for row in run.read_log() if "val_auroc" in row]
    assert len(lines) == len(looked) and lines[-1].startswith("step 10/10  epoch ")
