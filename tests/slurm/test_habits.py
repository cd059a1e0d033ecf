"""What sites and users do to jobs that run, on the real cluster: several habits for each job, for jobs are slow."""

from __future__ import annotations

import subprocess

import pytest
import settings
from conftest import wait_until

from jobs import cli
from slurm import client

pytestmark = pytest.mark.slurm


def scontrol(*words: str) -> None:
    subprocess.run(["scontrol", *words], check=True)


def test_run_outlives_suspension_a_drained_node_export_none_a_path_with_spaces_and_a_late_requeue(
    cluster, counting, capsys
):
    options = ("--steps", "60", "--step_seconds", "0.1")
    job = counting(*options, nodes=1, name="my run", sbatch={"export": "NONE"})
    job.queue()
    job.wait_for_step(3)
    scontrol("suspend", job.job_id)
    wait_until(lambda: client.job(job.job_id).state == "SUSPENDED", 20, "the suspension")
    assert cli.main(["status", str(job.folder)]) == 0
    assert "SUSPENDED" in capsys.readouterr().out
    node = client.job(job.job_id).nodes
    scontrol("update", f"NodeName={node}", "State=DRAIN", "Reason=test")
    scontrol("resume", job.job_id)
    assert job.wait_for_end() == "COMPLETED", job.log()
    assert client.job(job.job_id).restarts == 0
    assert job.samples() == list(range(60 * 12))
    scontrol("requeue", job.job_id)  # somebody's mistake
    wait_until(lambda: client.job(job.job_id).restarts == 1, 20, "the requeue")
    assert job.wait_for_end() == "COMPLETED", job.log()
    assert "final.json exists: nothing left to do" in job.log()
    assert job.samples() == list(range(60 * 12))


def test_two_jobs_of_one_user_share_both_nodes(cluster, counting):
    jobs = [counting("--steps", "100", "--step_seconds", "0.1", name=name) for name in ("one", "two")]
    for job in jobs:
        job.queue()
    for job in jobs:
        assert job.wait_for_end() == "COMPLETED", job.log()
        assert job.samples() == list(range(100 * 12))
    first, second = (job.lines() for job in jobs)
    assert first[0]["time"] < second[-1]["time"] and second[0]["time"] < first[-1]["time"]


def test_job_that_needs_more_memory_than_it_asked_for_says_so(cluster, counting, capsys):
    if not settings.limits_memory():
        pytest.skip("memory: no control groups of version 1 here")
    job = counting("--steps", "9", "--eat_at", "3", "--step_seconds", "0", nodes=1, max_restarts=0, mem="1500M")
    job.queue()
    assert job.wait_for_end() in ("FAILED", "OUT_OF_MEMORY"), job.log()
    said = "the kernel killed 1 of its processes because memory ran out: ask for more (mem)"
    assert job.log().splitlines()[-1].endswith(f"job {job.job_id} ends: {said}")
    assert cli.main(["status", str(job.folder)]) == 1
    assert said in capsys.readouterr().out
