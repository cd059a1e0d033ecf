"""Pretraining on a GPU: as on the CPU to rounding; and, with deterministic kernels, resumed to the last bit."""

from __future__ import annotations

from typing import Any

import pytest

from cxrdist.core import checkpoint
from tests.cxrdist import resume_worker
from tests.cxrdist.conftest import same
from tests.cxrdist.forked import run_forked

pytestmark = pytest.mark.gpu

EXACT: dict[str, Any] = {"device": "cuda", "deterministic": True, "steps": 6}


def go(run: Any, steps: int = 10**9) -> None:
    """Train in a process of its own until the end or a stop after `steps`."""
    log = run.path.with_name(f"{run.path.name}.err")
    code, errors = run_forked(resume_worker.train, str(run.path), steps, nproc=1, log=log)
    assert code == 0, errors[-3000:]


def losses(run: Any) -> list[float]:
    return [row["loss"] for row in run.read_log() if "loss" in row]


def test_a_run_learns_on_a_card_as_on_the_cpu(make_run):
    on_cpu, on_card = make_run("cpu", steps=4), make_run("card", **EXACT | {"steps": 4})
    for run in (on_cpu, on_card):
        go(run)
    assert losses(on_card) == pytest.approx(losses(on_cpu), rel=1e-2)
    assert on_card.read_done()["order_sha256"] == on_cpu.read_done()["order_sha256"]


RESUMED: dict[str, dict[str, Any]] = {
    "lars, float32": {},
    "adamw, bf16, dropout, in parts": {
        "precision": "bf16", "head": {"kind": "dropout"}, "watch": {"every_epochs": 0.4, "samples": 30},
        "optim": {"name": "adamw", "lr": 0.01, "micro_batch": 20, "clip_norm": 1.0},
    },
}  # fmt: skip


@pytest.mark.parametrize("case", RESUMED)
def test_a_run_with_deterministic_kernels_resumes_bit_identical_on_a_card(make_run, monkeypatch, case):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")  # the run must bring it itself
    changes = EXACT | RESUMED[case]
    whole, stopped = make_run("whole", **changes), make_run("stopped", **changes)
    go(whole)
    go(stopped, 2)
    assert not stopped.is_done and checkpoint.steps(stopped.checkpoints)[-1] == 2
    go(stopped)
    assert same(whole, stopped)


def test_the_scale_of_fp16_is_kept_in_checkpoints_and_goes_on_from_there(make_run):
    """The scale begins at 65,536 and is halved by a gradient that is not finite; a resumed run must not begin again."""
    changes = EXACT | {"precision": "fp16", "checkpoint": {"every_steps": 1, "keep": 10}}
    changes |= {"optim": {"name": "sgd", "lr": 0.01, "clip_norm": 1.0}}
    whole, stopped = make_run("whole", **changes), make_run("stopped", **changes)
    go(whole)
    go(stopped, 3)
    go(stopped)
    for step in range(1, 7):
        scales = []
        for run in (whole, stopped):
            folder = checkpoint.folder(run.checkpoints, step)
            state, meta = checkpoint.load(folder, str(run.read_info()["signature"]))
            assert meta["precision"] == "fp16"
            scales.append((float(state["scaler"]["scale"]), int(state["scaler"]["_growth_tracker"])))
        assert scales[0] == scales[1] and scales[0][0] > 0, step
    assert scales[0][1] > 0, "no step of all was taken"
    assert same(whole, stopped)
