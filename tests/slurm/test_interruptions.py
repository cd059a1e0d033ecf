"""What a cluster does to jobs by itself: time limits, preemption by TERM, a node that it lost sight of."""

from __future__ import annotations

import json
import subprocess
import time

import pytest
from conftest import command_lines, wait_until
from counting_worker import unbroken

from slurm import client

pytestmark = pytest.mark.slurm


def whole(job, steps: int) -> bool:
    return job.samples() == list(range(steps * 12))


def test_job_at_its_time_limit_saves_requeues_and_goes_on_at_the_next_step(cluster, counting):
    job = counting("--steps", "400", "--step_seconds", "0.1", "--save_every", "10000", nodes=1, time="1")
    job.queue()
    assert job.wait_for_end(400) == "COMPLETED", job.log()
    assert whole(job, 400), job.log()
    assert json.loads((job.folder / "final.json").read_text()) == unbroken(400, world=1)
    stretches = {int(line["restart"]) for line in job.lines()}
    assert stretches == set(range(len(stretches))) and len(stretches) > 1
    # SLURM sent the signal, in time: no stretch was ended by the limit itself.
    assert job.log().count("by SIGUSR2") == len(stretches) - 1
    assert "TIME LIMIT" not in job.log() and "killed" not in job.log()


def test_preemption_that_sends_term_only_loses_nothing_either(cluster, counting):
    text = cluster.conf.read_text()
    cluster.conf.write_text(text.replace("SlurmctldParameters=preempt_send_user_signal\n", ""))
    subprocess.run(["scontrol", "reconfigure"], check=True)
    try:
        options = ("--steps", "60", "--step_seconds", "0.1", "--save_every", "1000")
        job = counting(*options, nodes=1, partition="preempt", max_restarts=3)
        job.queue()
        job.wait_for_step(5)
        subprocess.run("sbatch -p high -N2 --exclusive -o /dev/null --wrap true".split(), check=True)
        assert job.wait_for_end() == "COMPLETED", job.log()
    finally:
        cluster.conf.write_text(text)
        subprocess.run(["scontrol", "reconfigure"], check=True)
    assert whole(job, 60)
    assert len((job.folder / "saves.jsonl").read_text().splitlines()) == 1
    assert json.loads((job.folder / "final.json").read_text()) == unbroken(60, world=1)


def test_ranks_on_a_node_that_slurm_lost_sight_of_do_not_write_into_the_requeued_run(cluster, counting):
    job = counting("--steps", "150", "--step_seconds", "0.1", "--save_every", "10", nodes=1, max_restarts=3)
    job.queue()
    job.wait_for_step(12)
    node = client.job(job.job_id).nodes
    ranks = processes_of(job)
    assert ranks
    cluster.kill_slurmd(node)
    lost_at = time.time()
    subprocess.run(f"scontrol update NodeName={node} State=DOWN Reason=test".split(), check=True)
    wait_until(lambda: job.lines()[-1]["restart"] == "1", 90, f"the next stretch: {job.log()}")
    took_over = next(line["time"] for line in job.lines() if line["restart"] == "1")
    assert client.job(job.job_id).nodes != node
    assert any(line["time"] > lost_at + 1 for line in job.lines() if line["restart"] == "0")  # they did go on
    assert job.wait_for_end() == "COMPLETED", job.log()
    assert all(line["time"] < took_over for line in job.lines() if line["restart"] == "0")
    assert f"job {job.job_id}.1 has taken over this run from job {job.job_id}.0" in job.log()
    assert not ranks & processes_of(job)
    assert sorted(set(job.samples())) == list(range(150 * 12))
    assert json.loads((job.folder / "final.json").read_text()) == unbroken(150, world=1)


def processes_of(job) -> set[int]:
    """Numbers of the job's ranks and launchers, on any node."""
    lines = command_lines(job.folder)
    return {pid for pid, line in lines.items() if b"counting_worker" in line or b"submitit" in line}
