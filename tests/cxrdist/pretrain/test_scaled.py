"""fp16: gradients are scaled for the backward pass alone, and the scale is part of where a run stands."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from cxrdist.core import checkpoint
from cxrdist.core.distributed import Ranks
from cxrdist.errors import FailedError
from cxrdist.pretrain.losses.nt_xent import nt_xent
from cxrdist.pretrain.state import TrainingState
from cxrdist.pretrain.step import JointEmbedding, Step
from cxrdist.pretrain.trainer import Job
from tests.cxrdist.conftest import same
from tests.cxrdist.pretrain.test_data_parallel import go

CPU = torch.device("cpu")


def model() -> JointEmbedding:
    torch.manual_seed(2)
    return JointEmbedding(nn.Sequential(nn.Flatten(), nn.Linear(16, 8)), nn.Linear(8, 4))


@pytest.mark.parametrize("micro_batch", [None, 4])
def test_a_scaled_step_leaves_the_gradient_times_the_scale(micro_batch):
    loss = lambda a, b, images=None: nt_xent(a, b, images=images)  # noqa: E731
    first, second = torch.randn(2, 6, 1, 4, 4)
    plain, scaled = model(), model()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    value = Step(plain, CPU, "float32", loss, micro_batch)(first, second)
    assert torch.equal(Step(scaled, CPU, "float32", loss, micro_batch, scaler)(first, second), value)
    for a, b in zip(plain.parameters(), scaled.parameters(), strict=True):
        assert a.grad is not None and b.grad is not None
        assert torch.allclose(a.grad * 1024, b.grad, rtol=1e-5, atol=1e-4)


def test_a_run_whose_gradients_are_finite_at_no_scale_ends_with_an_error(make_run):
    job = object.__new__(Job)
    job.run, job.ranks, job.model, job._pending = make_run(), Ranks(), model(), None
    job.scaler = torch.amp.GradScaler("cpu", init_scale=65536.0)
    optimizer = torch.optim.SGD(job.model.parameters(), lr=1.0)
    before = [p.clone() for p in job.model.parameters()]
    nothing: Any = None
    for _ in range(40):  # each step is skipped, and the loss says nothing of it
        for parameter in job.model.parameters():
            parameter.grad = torch.full_like(parameter, torch.nan)
        job.scaler.scale(torch.ones(()))
        job.scaler.step(optimizer)
        job.scaler.update()
    assert all(torch.equal(a, b) for a, b in zip(before, job.model.parameters(), strict=True))
    with pytest.raises(FailedError, match="not finite at any scale .* at step 40"):
        job.save(TrainingState(step=40), nothing)
    assert not checkpoint.steps(job.run.checkpoints)


@pytest.mark.slow  # fp16 is emulated on CPUs
def test_the_scale_is_kept_in_checkpoints_and_a_resumed_run_is_the_unbroken_one(make_run):
    changes: dict[str, Any] = {"precision": "fp16", "steps": 2, "image_size": 16, "global_batch": 4}
    changes |= {"optim": {"clip_norm": 1.0}}
    whole, stopped = make_run("whole", **changes), make_run("stopped", **changes)
    go(whole, 1)
    go(stopped, 1, 1)
    state, meta = checkpoint.load(checkpoint.folder(stopped.checkpoints, 1), str(stopped.read_info()["signature"]))
    assert meta["precision"] == "fp16" and state["scaler"]["scale"] > 0
    assert state["scaler"]["_growth_tracker"] <= 1
    go(stopped, 1)
    assert same(whole, stopped)
