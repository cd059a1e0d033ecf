"""Fine-tuning in fp16: a step whose gradient overflows is not taken, a loss that is not finite ends the trial."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cxrdist.core import checkpoint
from cxrdist.core.device import resolve_precision
from cxrdist.errors import FailedError
from cxrdist.finetune import identity
from cxrdist.finetune.checkpoints import Saver
from cxrdist.finetune.config import FinetuneConfig
from cxrdist.finetune.loop import Fit, FitInputs, Stopped
from cxrdist.finetune.phases import optimiser
from tests.cxrdist.finetuning import trial

N = 64


def problem(precision: str, size: float = 1.0, device: str = "cpu") -> FitInputs:
    """Which side of a plane does a point of 4 numbers lie on; `size` is that of the numbers."""
    torch.manual_seed(0)
    x = torch.randn(N, 4).to(device)
    y = (x[:, :1] > 0).float()
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)).to(device)
    ones = torch.ones(1, device=device)
    return FitInputs(
        network=network,
        head=network[2],
        unfreeze=lambda last, layers: None,
        batch=lambda step, rows: size * x[torch.from_numpy(rows).to(device)],
        y=y,
        mask=torch.ones_like(y, dtype=torch.bool),
        weights=(ones, ones),
        val_logits=lambda: network(size * x).detach().cpu().numpy(),
        val_y=y.cpu().numpy(),
        val_mask=np.ones((N, 1), dtype=bool),
        trainable=np.ones(1, dtype=bool),
        precision=precision,
    )


@pytest.fixture
def fitted(blobs: Path, tmp_path: Path):
    """A function (name, problem, changes) -> the fit of a run's folder, not begun."""

    def make(name: str, given: FitInputs, stop: Any = None, **changes: Any) -> Fit:
        settings: dict[str, Any] = {
            "epochs": 10,
            "min_steps": 0,
            "log_every": 1,
            "patience": None,
            "optim": {"lr": 0.05},
        }
        config, run = trial(tmp_path / name, blobs, **settings | changes)
        return Fit(config, given, run, Saver(run), stop)

    return make


class AfterOneStep:
    """Asks to stop at once."""

    requested = True


def weights(fit: Fit) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in fit.problem.network.parameters()])


def test_a_trial_in_fp16_ends_near_the_one_in_float32(fitted):
    narrow, wide = fitted("narrow", problem("fp16")), fitted("wide", problem("float32"))
    aurocs = [list(fit)[-1].auroc for fit in (narrow, wide)]
    assert narrow.scaler is not None and wide.scaler is None
    assert aurocs[0] == pytest.approx(aurocs[1], abs=0.01) and aurocs[1] > 0.95
    assert torch.allclose(weights(narrow), weights(wide), atol=0.02)
    assert not torch.equal(weights(narrow), weights(wide))


def test_steps_whose_gradient_overflows_are_not_taken_until_the_scale_fits(fitted):
    """fp16 ends at 65,504: a gradient by inputs of 300, times a scale of 65,536, lies beyond it, a loss of 0.7 not."""
    fit = fitted("big", problem("fp16", size=300.0), optim={"lr": 0.01})
    before = weights(fit)
    fit._step(0)
    assert torch.equal(weights(fit), before) and fit.scaler is not None
    assert fit.scaler.get_scale() == 32768.0
    list(fit)
    assert 1 < fit.scaler.get_scale() < 65536 and not torch.equal(weights(fit), before)
    assert torch.isfinite(weights(fit)).all()


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_sgd_has_no_momentum_of_a_first_step_that_was_not_taken(fitted, device):
    """Where memory that nobody wrote is NaN; torch's fused SGD would keep it as momentum."""
    torch.use_deterministic_algorithms(True)
    try:
        fit = fitted("sgd", problem("fp16", 300.0, device), optim={"name": "sgd", "lr": 0.01})
        list(fit)
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.isfinite(weights(fit)).all()


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_trial_in_fp16_that_was_stopped_ends_as_the_unbroken_one(fitted, device):
    whole = fitted("whole", problem("fp16", 300.0, device))
    list(whole)
    stopped = fitted("stopped", problem("fp16", 300.0, device), AfterOneStep())
    with pytest.raises(Stopped):
        list(stopped)
    state, _ = checkpoint.load(checkpoint.folder(stopped.run.checkpoints, 1), stopped.saver.signature)
    assert state["scaler"]["scale"] == 32768.0, "the first step was not taken"
    again = fitted("stopped", problem("fp16", 300.0, device))
    list(again)
    exact = 0.0 if device == "cpu" else 1e-3  # a card adds in the order that suits it
    assert torch.allclose(weights(again), weights(whole), rtol=exact, atol=exact)
    assert again.scaler is not None and whole.scaler is not None
    assert again.scaler.state_dict() == whole.scaler.state_dict()


def test_a_loss_that_is_not_finite_ends_it_and_says_what_else_there_is(fitted):
    fit = fitted("nan", problem("fp16", size=1e9))  # the inputs themselves are infinite in fp16
    with pytest.raises(FailedError, match=r"the loss became nan at step 1; .* or take --precision bf16 or float32"):
        list(fit)


def test_gradients_that_are_finite_at_no_scale_end_it(fitted):
    given = problem("fp16")
    for parameter in given.network.parameters():
        parameter.register_hook(lambda gradient: torch.full_like(gradient, torch.inf))
    with pytest.raises(FailedError, match="not finite at any scale .* at step 30"):
        list(fitted("never", given, epochs=40))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_optimisers_take_few_kernels_for_all_parameters(fitted, device):
    """torch's own choice for sgd on the CPU is a loop, whose bits runs of before have."""
    for name in ("adam", "adamw", "sgd"):
        fit = fitted(name, problem("float32", device=device), optim={"name": name, "lr": 0.01})
        made = optimiser(fit.config, fit.problem.network, fit.problem.head, fit.phases[0])
        assert bool(made.defaults["fused"]) == (name != "sgd")
        assert bool(made.defaults["foreach"]) == (name == "sgd" and device == "cuda")


def test_fp16_is_a_choice_of_its_own_and_leaves_the_other_signatures_alone(blobs, tmp_path):
    config, run = trial(tmp_path / "a", blobs, precision="fp16")
    other, _ = trial(tmp_path / "b", blobs)
    assert identity.trial_signature(config) != identity.trial_signature(other)
    assert run.read_config()["precision"] == "fp16"
    assert resolve_precision("fp16", torch.device("cpu"), 28, scaled=True) == "fp16"
    assert FinetuneConfig(shards="-", out="-").precision == "auto"
