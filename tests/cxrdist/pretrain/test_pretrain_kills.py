"""Ranks of a pretraining that are stopped and killed from outside, and the run that comes of it."""

import os
import random
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from slurm.processes import children
from tests.cxrdist import resume_worker
from tests.cxrdist.conftest import ROOT, TINY, run_ranks, same, start_worker, train
from tests.cxrdist.forked import run_forked


def wait_for_step(run: Any, step: int, process: Any) -> None:
    for _ in range(5000):  # a machine with much else to do takes minutes
        if process.poll() is not None or any(row["step"] >= step for row in run.read_log()):
            return
        time.sleep(0.1)
    process.terminate()
    process.communicate()
    raise AssertionError(f"step {step} was not reached")


def test_a_killed_rank_is_restarted_by_torchrun_and_ranks_told_to_stop_save_end_with_code_0_and_resume_bit_identical(
    make_run, whole_of_two
):
    run = make_run("run", steps=40)
    code = (
        "import sys; from slurm.launch import local; "
        f"sys.exit(local('cxrdist.pretrain', [{str(run.path)!r}], nproc=2, max_restarts=2))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True,
        stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    wait_for_step(run, 6, process)
    os.kill(victims(process.pid)[1][-1], signal.SIGKILL)
    logged = max(row["step"] for row in run.read_log())
    wait_for_step(run, logged + 3, process)  # the rank that is left may log one step more; the restarted ones log these
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert not run.is_done and "continues at step" in errors and "stopped at step" in errors
    train(run, nproc=2)
    assert same(run, whole_of_two)


def test_two_ranks_killed_in_the_middle_resume_bit_identical(make_run, whole_of_two):
    """One dies of itself, the other is killed with it, as torchrun does it."""
    run = make_run("run", steps=40)
    log = run.path.with_name("killed.err")
    code, errors = run_forked(resume_worker.train_until_killed, str(run.path), 1, 6, 0.01, nproc=2, log=log)
    assert code == 128 + signal.SIGKILL and not run.is_done, errors
    train(run, nproc=2)
    assert same(run, whole_of_two)


def victims(launcher: int) -> tuple[list[int], list[int]]:
    """Ids of the agent and of the ranks below a launcher."""
    agents = children(launcher)
    return agents, [rank for agent in agents for rank in children(agent)]


def break_off(run: Any, process: Any, who: str, at: int) -> None:
    """Kill a rank, the agent or everything with SIGKILL once a step is logged."""
    wait_for_step(run, at, process)
    agents, ranks = victims(process.pid)
    for _ in range(1200):  # a step that an earlier attempt logged says nothing about this one's ranks
        if ranks or process.poll() is not None:
            break
        time.sleep(0.1)
        agents, ranks = victims(process.pid)
    doomed = {"rank": ranks[-1:], "agent": agents, "all": [process.pid, *agents, *ranks]}[who]
    for pid in doomed:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    process.communicate(timeout=300)


# Quick forms of the same: a killed rank and ranks that all die, above; a killed agent, tests/slurm/test_launch.py.
@pytest.mark.slow
@pytest.mark.parametrize("who", ["rank", "agent", "all"])
def test_ranks_under_torchrun_killed_in_the_middle_resume_bit_identical(make_run, who, whole_of_two):
    run = make_run(who, steps=40)
    process = start_worker(run, nproc=2)
    break_off(run, process, who, 6)
    assert not run.is_done
    train(run, nproc=2)
    assert same(run, whole_of_two)


@pytest.fixture(scope="module")
def whole_of_two(blobs, tmp_path_factory):
    """An unbroken run of two ranks, 40 steps."""
    from cxrdist.pretrain.config import PretrainConfig, from_dict
    from cxrdist.pretrain.run_folder import create_run

    values = {
        "shards": str(blobs), "out": str(tmp_path_factory.mktemp("whole") / "run"), "arch": TINY,
        "image_size": 32, "global_batch": 16, "steps": 40, "device": "cpu", "precision": "float32", "workers": 0,
        "tensorboard": False, "watch": {"every_epochs": 0}, "checkpoint": {"every_steps": 4}, "log_every": 1,
        "head": {"dim": 16, "hidden": 32}, "optim": {"lr": 0.1},
    }  # fmt: skip
    run = create_run(from_dict(PretrainConfig, values), command=["test"])
    train(run, nproc=2)
    return run


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_hundred_random_kills_lose_and_repeat_no_sample(make_run):
    dice = random.Random(20261120)
    wanted = int(os.environ.get("CXRDIST_KILLS", "100"))
    # An attempt gets at most 5 steps beyond the last logged one, so the run cannot end before the last kill.
    steps = 6 * wanted + 10
    whole, run = make_run("unbroken", steps=steps), make_run("battered", steps=steps)
    assert run_ranks(whole, nproc=2, timeout=3600)[0] == 0
    killed: list[tuple[str, int]] = []
    while len(killed) < wanted and not run.is_done:
        process = start_worker(run, nproc=2)
        seen = max((row["step"] for row in run.read_log()), default=0)
        killed.append((dice.choice(["rank", "agent", "all"]), seen + dice.randint(0, 4)))
        break_off(run, process, *killed[-1])
    assert len(killed) == wanted
    code, errors = run_ranks(run, nproc=2, timeout=3600)
    assert code == 0, errors[-3000:]
    assert same(run, whole)
    print(f"{wanted} kills, {steps} steps:", *(f"{who}@{step}" for who, step in killed))
