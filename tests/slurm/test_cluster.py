"""Jobs on the real cluster: two nodes, preemption, requeue, lost nodes, Ray. Every wait has a bound."""

from __future__ import annotations

import dataclasses
import json
import subprocess

import cluster as harness
import pytest
from conftest import PORT_TAKEN, command_lines, debian, hosts_of_nodes, wait_until
from counting_worker import unbroken

from jobs import cli
from jobs._queueing import queue_all
from slurm import checks, client, processes, submit
from slurm.errors import FailedError, InputError
from tests.shadows import shadows

pytestmark = pytest.mark.slurm

STEPS = 40
EVERY_SAMPLE_ONCE = list(range(STEPS * 12))


def final(job) -> dict:
    return json.loads((job.folder / "final.json").read_text())


def test_torchrun_crosses_both_nodes_and_plain_sbatch_runs_the_same_job_again(cluster, counting, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_API_TOKEN", "hush-hush")
    monkeypatch.chdir(shadows(tmp_path / "work"))
    profile = {"gres": "gpu:2", "ranks_per_node": 2, "setup": (PORT_TAKEN,)}
    job = counting("--steps", "3", "--step_seconds", "0", "--gloo", partition="main, preempt", **profile)
    with hosts_of_nodes(cluster, tmp_path, debian(cluster)):
        job.queue()
        assert job.wait_for_end() == "COMPLETED", job.log()
    assert {line["world"] for line in job.lines()} == {4}
    facts = json.loads((job.folder / "submission" / f"environment-{job.job_id}.json").read_text())["variables"]
    assert (facts["CUDA_VISIBLE_DEVICES"], facts["SLURM_JOB_PARTITION"]) == ("0,1", "main,preempt")
    assert "node 2 of 2" in job.log()
    (job.folder / "final.json").unlink()
    again = subprocess.run(["sbatch", job.folder / "submission" / "job.sbatch"], capture_output=True, text=True)
    job.job_id = again.stdout.split()[-1]
    assert job.wait_for_end() == "COMPLETED", job.log()
    assert final(job)["step"] == 3
    for path in job.folder.rglob("*"):
        assert not path.is_file() or b"hush-hush" not in path.read_bytes()
    assert (job.folder / "submission").stat().st_mode & 0o077 == 0


def test_preempted_job_saves_requeues_and_goes_on_at_the_next_step(cluster, counting):
    job = counting("--steps", str(STEPS), "--step_seconds", "0.15", "--save_every", "1000", partition="preempt")
    job.queue()
    job.wait_for_step(5)
    subprocess.run("sbatch -p high -N2 --exclusive -o /dev/null --wrap true".split(), check=True)
    assert job.wait_for_end() == "COMPLETED", job.log()
    assert job.samples() == EVERY_SAMPLE_ONCE
    assert {line["restart"] for line in job.lines()} == {"0", "1"}
    assert final(job) == unbroken(STEPS, world=2)
    assert len((job.folder / "saves.jsonl").read_text().splitlines()) == 1


def test_signal_of_a_job_shorter_than_ten_minutes_requeues_it_within_the_bound_only(cluster, counting):
    job = counting("--steps", "400", "--step_seconds", "0.1", nodes=1, max_requeues=1)
    job.queue()
    for restart in ("0", "1"):
        wait_until(lambda now=restart: job.lines() and job.lines()[-1]["restart"] == now, 120, "a stretch")
        subprocess.run(["scancel", "--signal=USR2", job.job_id], check=True)
    assert job.wait_for_end() == "FAILED"
    assert "requeued 1 times already (max_requeues = 1)" in job.log()
    steps = [line["step"] for line in job.lines()]
    assert steps == list(range(1, len(steps) + 1))
    assert json.loads((job.folder / "checkpoint.json").read_text())["step"] == steps[-1]


def test_program_that_fails_ends_its_job_at_once(cluster, counting):
    job = counting("--steps", "400", "--fail_at", "3", "--step_seconds", "0", max_restarts=0)
    job.queue()
    assert job.wait_for_end() == "FAILED"
    assert "this step cannot be taken" in job.log() and "goes back to the queue" not in job.log()


def test_killed_launcher_requeues_the_job_from_its_last_checkpoint(cluster, counting):
    job = counting("--steps", str(STEPS), "--step_seconds", "0.15", "--save_every", "5", nodes=1, max_restarts=0)
    job.queue()
    job.wait_for_step(7)
    _kill_task(job)
    assert job.wait_for_end() == "COMPLETED", job.log()
    assert "its processes were killed" in job.log() or "it was asked to stop" in job.log()
    assert {line["restart"] for line in job.lines()} == {"0", "1"}
    assert sorted(set(job.samples())) == EVERY_SAMPLE_ONCE


def _kill_task(job) -> None:
    for pid, line in command_lines(job.folder).items():
        if b"submitit.core._submit" in line and b"srun" not in line:
            processes.send([pid], 9)


def test_job_that_loses_a_node_goes_on_with_the_one_that_is_left(cluster, counting):
    job = counting("--steps", str(STEPS), "--step_seconds", "0.15", "--save_every", "5", min_nodes=1)
    wait_until(
        lambda: subprocess.check_output("sinfo -h -N -p main -o %T".split()).split() == [b"idle"] * 2, 60, "idle"
    )
    job.queue()
    job.wait_for_step(7)
    assert job.lines()[-1]["world"] == 2
    lost = harness.NODES[1]
    cluster.crash_node(lost)
    # What the controller does by itself after SlurmdTimeout; not waiting for it saves the test half a minute.
    subprocess.run(f"scontrol update NodeName={lost} State=DOWN Reason=test".split(), check=True)
    assert job.wait_for_end(240) == "COMPLETED", job.log()
    assert job.lines()[-1]["world"] == 1
    assert sorted(set(job.samples())) == EVERY_SAMPLE_ONCE


def test_ray_tune_runs_on_both_nodes_of_an_allocation(cluster, counting, tmp_path, monkeypatch):
    monkeypatch.chdir(shadows(tmp_path / "work"))
    job = counting(nodes=2, ranks_per_node=1, cpus_per_rank=2, gpus_per_node="a100:1", setup=(PORT_TAKEN,))
    task = dataclasses.replace(
        job.request.task, kind="ray", words=("ray_probe", str(job.folder)), listens=False,
        done=str(job.folder / "answer.json"),
    )  # fmt: skip
    job.request = dataclasses.replace(job.request, task=task)
    with hosts_of_nodes(cluster, tmp_path, debian(cluster)):
        job.queue()
        assert job.wait_for_end(240) == "COMPLETED", job.log()
    answer = json.loads((job.folder / "answer.json").read_text())
    assert (answer["nodes"], answer["gpus"]) == (2, 2)
    assert not [*(job.folder / "submission").glob(".ray-*"), *(job.folder / "submission").glob(".meet-*")]
    assert sorted(answer["trials"]) == [[4, answer["trials"][0][1]], [9, answer["trials"][1][1]]]
    if cluster.mode == "netns":
        assert {host for _, host in answer["trials"]} == {cluster.address(node) for node in harness.NODES}


def test_second_submission_of_a_queued_run_is_refused_and_cancel_ends_it(cluster, counting, capsys):
    job = counting("--steps", "9")
    job.request = dataclasses.replace(job.request, after=())
    subprocess.run("sbatch -p high -N2 --exclusive -o /dev/null --wrap".split() + ["sleep 60"], check=True)
    wait_until(lambda: "R" in subprocess.check_output(["squeue", "-h", "-o", "%t"], text=True), 20, "the blocker")
    job.queue()
    with pytest.raises(InputError, match=f"in the queue already: job {job.job_id} is PENDING"):
        submit.submit(job.request)
    assert client.cancel([job.job_id]) == [job.job_id]
    assert job.wait_for_end() == "CANCELLED"
    assert cli.main(["status", str(job.folder)]) == 1
    assert f"goes on from where it stopped with: sbatch {job.folder}/submission/job.sbatch" in capsys.readouterr().out


def test_an_array_whose_merge_is_not_taken_is_cancelled_again(cluster, counting):
    parts = counting("--steps", "9", name="parts").request
    merge = counting("--steps", "9", name="merge", partition="nowhere").request  # which sbatch does not take
    with pytest.raises((InputError, FailedError), match=r"cancelled again \(job (\d+)\)") as refused:
        queue_all([parts, merge])
    number = str(refused.value).partition("(job ")[2].rstrip(")")
    assert number.isdigit()  # parts that had begun are still being ended
    wait_until(lambda: client.job(number).state != "COMPLETING", 30, "the end of the array")
    assert client.job(number).state == "CANCELLED"


def test_requests_that_the_cluster_cannot_meet_are_refused_before_they_are_queued(cluster, counting):
    request = counting().request
    with pytest.raises(InputError, match="partition 'gpuu' is unknown; this cluster has high, main, preempt"):
        checks.check(dataclasses.replace(request, partition="gpuu"))
    with pytest.raises(InputError, match="has 2 nodes, fewer than the 3"):
        checks.check(dataclasses.replace(request, nodes=3))
    with pytest.raises(InputError, match="allows 1440 minutes"):
        checks.check(dataclasses.replace(request, profile=dataclasses.replace(request.profile, time="2-0")))
    with pytest.raises(InputError, match="partition 'gpuu' is unknown"):
        checks.check(dataclasses.replace(request, partition="main,gpuu"))
    checks.check(dataclasses.replace(request, partition="high,main"))
    for asked, message in (
        (4, "2 GPUs on a node, fewer than gpus_per_node = 4"),
        ("v100:1", "has 1 nodes with 1 v100 GPUs, fewer than the 2 asked for"),
        ("a100:2", "its nodes: 1 with a100:2; 1 with a100:1,v100:1"),
        ("h100:1", "has 0 nodes with 1 h100 GPUs"),
    ):
        with pytest.raises(InputError, match=message):
            checks.check(with_gpus(request, asked))
    for asked in (2, "a100:1"):
        checks.check(with_gpus(request, asked))
    subprocess.run("scontrol update PartitionName=high State=DOWN".split(), check=True)
    try:
        with pytest.raises(InputError, match="is closed"):
            checks.check(dataclasses.replace(request, partition="high"))
        checks.check(dataclasses.replace(request, partition="high,main"))  # one of them is enough
    finally:
        subprocess.run("scontrol update PartitionName=high State=UP".split(), check=True)


def with_gpus(request: submit.Request, asked: int | str) -> submit.Request:
    profile = dataclasses.replace(request.profile, gpus_per_node=asked, ranks_per_node=None)
    task = dataclasses.replace(request.task, gpus_per_node=profile.gpus)
    return dataclasses.replace(request, profile=profile, task=task)
