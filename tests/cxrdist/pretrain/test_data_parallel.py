"""DDP as a run needs it that is interrupted and resumed: nothing of a process's own start is left in the numbers."""

import os
import random
import signal
from typing import Any

import pytest
import torch
from torch import nn

from cxrdist.core import checkpoint
from cxrdist.core.distributed import Ranks, data_parallel, thrown_away
from tests.cxrdist import resume_worker
from tests.cxrdist.conftest import same, weights
from tests.cxrdist.forked import run_forked
from tests.cxrdist.resume_worker import Idle


def go(run: Any, nproc: int, steps: int = 10**9) -> None:
    """Train on `nproc` ranks until the end or a stop after `steps`."""
    log = run.path.with_name(f"{run.path.name}.err")
    code, errors = run_forked(resume_worker.train, str(run.path), steps, nproc=nproc, log=log)
    assert code == 0, errors[-3000:]
    assert "Warning" not in errors and "warning" not in errors, errors[-3000:]


CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "three ranks": (3, {}),
    "four ranks, in parts, statistics over all": (4, {"optim": {"micro_batch": 2}, "sync_bn": True}),
    "three ranks, gradients in bf16": (3, {"comm_hook": "bf16"}),
}


@pytest.mark.parametrize("case", CASES)
def test_more_ranks_than_two_resume_bit_identical(make_run, case):
    """With two, a + b is b + a, whatever the layout of the buckets; with more the layout shows in the last bits."""
    nproc, changes = CASES[case]
    changes = {"global_batch": 12, "steps": 6, **changes}
    whole, run = make_run("whole", **changes), make_run("run", **changes)
    go(whole, nproc)
    go(run, nproc, 3)
    assert checkpoint.steps(run.checkpoints)[-1] == 3 and not run.is_done
    go(run, nproc)
    assert same(run, whole)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_kills_of_one_of_three_ranks_lose_and_repeat_no_sample(make_run):
    """At random moments, in checkpoints too; the other ranks are ended as torchrun ends them."""
    dice, wanted = random.Random(20261126), int(os.environ.get("CXRDIST_KILLS", "100"))
    # A life has at most 5 steps, and what is left of the last one, so the run cannot end before the last kill.
    changes = {"global_batch": 12, "steps": 8 * wanted, "checkpoint": {"every_steps": 2}}
    whole, run = make_run("whole", **changes), make_run("run", **changes)
    go(whole, 3)
    reached = []
    for number in range(wanted):
        life = dice.randrange(3), dice.randint(1, 5), dice.uniform(0, 0.1)
        log = run.path.with_name("killed.err")
        code, errors = run_forked(resume_worker.train_until_killed, str(run.path), *life, nproc=3, log=log)
        assert code == 128 + signal.SIGKILL, (number, errors[-3000:])
        reached.append(max((row["step"] for row in run.read_log()), default=0))
    assert not run.is_done
    go(run, 3)
    assert same(run, whole)
    print(f"{wanted} kills at steps {reached} of {8 * wanted}")


def test_gradients_in_bf16_are_rounded_and_the_run_is_another_one(make_run):
    changes: dict[str, Any] = {"global_batch": 8, "steps": 2}
    whole, run = make_run("whole", **changes), make_run("run", **changes, comm_hook="bf16")
    assert whole.read_info()["signature"] != run.read_info()["signature"]
    go(whole, 2)
    go(run, 2)
    a, b = weights(whole), weights(run)
    assert any(not torch.equal(a[key], b[key]) for key in a)
    assert all(torch.allclose(a[key].float(), b[key].float(), rtol=0.05, atol=0.01) for key in a)


def test_a_parameter_that_the_loss_does_not_depend_on_stays_as_it_is_on_any_number_of_ranks(tmp_path):
    fresh = Idle().state_dict()
    for world in (1, 2):
        code, errors = run_forked(resume_worker.idle, str(tmp_path), nproc=world, log=tmp_path / f"{world}.err")
        assert code == 0, errors[-3000:]
        for rank in range(world):
            after = torch.load(tmp_path / f"{world}-{rank}.pt")
            assert torch.equal(after["idle.weight"], fresh["idle.weight"])
            assert not torch.equal(after["layer.weight"], fresh["layer.weight"])
            assert after["norm.num_batches_tracked"] == 1


def test_a_batch_in_parts_sends_its_gradients_once(tmp_path):
    code, errors = run_forked(resume_worker.counted, str(tmp_path), nproc=2, log=tmp_path / "errors")
    assert code == 0, errors[-3000:]
    assert [(tmp_path / str(rank)).read_text().split() for rank in (0, 1)] == [["0", "0"]] * 2


def test_a_pass_that_is_thrown_away_leaves_no_trace():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)).train()
    model[1].running_mean += 7  # pyright: ignore[reportOperatorIssue]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with thrown_away(model, torch.device("cpu")):
        model(torch.randn(6, 3)).square().sum().backward()
        assert model[1].num_batches_tracked == 1 and model[0].weight.grad is not None
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_one_rank_is_left_as_it_is():
    model = nn.Linear(2, 2)
    assert data_parallel(model, Ranks(), torch.zeros(2, 2), "bf16") is model
