"""The commands of a login node on the real cluster, with the real training."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import cluster as harness
import pytest
from conftest import wait_until

from jobs import cli, drill
from results.run import Run
from slurm import client, submit
from slurm.drill import lost_and_repeated

pytestmark = pytest.mark.slurm

SMALL = "--arch test_resnet --image_size 32 --global_batch 16 --device cpu --precision float32"
SMALL += " --watch.every_epochs 1000"


def end_of(folder: Path, seconds: float) -> str:
    job_id = submit.job_ids(folder)[-1]
    wait_until(lambda: not client.job(job_id).active, seconds, f"the end of job {job_id}", 0.5)
    return client.job(job_id).state


def test_submitted_pretraining_crosses_nodes_is_stopped_and_goes_on(cluster, shards, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("one.toml").write_text("ranks_per_node = 1\n")  # test_cluster.py has two ranks on each node
    words = f"submit pretrain --nodes 2 --time 5 --shards {shards} --out run {SMALL} --steps 24 --log_every 1"
    words += " --profile one.toml"
    assert cli.main(words.split()) == 0
    run = Run(tmp_path / "run")
    job_id = submit.job_ids(run.submission)[-1]
    assert f"queued as job {job_id}" in capsys.readouterr().out
    wait_until(lambda: len(run.read_log()) >= 4, 180, "the fourth step")
    assert cli.main(["status", "run"]) == 0
    shown = capsys.readouterr().out
    assert "run  RUNNING  job" in shown and "images/s" in shown and "/24" in shown
    assert cli.main(words.split()) == 2  # it runs already
    assert "is in the queue already" in capsys.readouterr().err
    subprocess.run(["scancel", "--signal=USR2", job_id], check=True)
    assert end_of(run.submission, 240) == "COMPLETED"
    done = run.read_done()
    assert (done["world"], done["steps"]) == (2, 24)
    steps = [json.loads(line)["step"] for line in run.metrics_log.read_text().splitlines() if '"images_per_s"' in line]
    assert lost_and_repeated(steps, 24) == (0, 0)
    assert cli.main(["logs", "-f", "run"]) == 0
    log = capsys.readouterr().out
    assert "stopped at step" in log and "continues at step" in log and "goes back to the queue" in log
    assert cli.main(["status", "run"]) == 0
    assert "run  done" in capsys.readouterr().out
    assert cli.main(words.split()) == 0
    assert "is complete: nothing to queue" in capsys.readouterr().out
    assert cli.main(words.replace("--steps 24", "--steps 25").split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("cxrdist: ") and error.count("\n") == 1 and "holds another run" in error


def private(folder: Path) -> bool:
    return folder.stat().st_mode & 0o077 == 0


def test_chain_runs_each_stage_after_its_needs_and_skips_what_is_complete(
    cluster, tmp_path, capsys, monkeypatch, secrets
):
    monkeypatch.chdir(tmp_path)
    assert cli.main("shard phantom --out nih --images 40 --size 48 --layout_only true --workers 1".split()) == 0
    Path("chain.toml").write_text(f"""
[[stage]]
name = "simclr"
needs = ["shards"]
run = "pretrain --shards shards --out run {SMALL} --steps 4"

[[stage]]
name = "shards"
run = "shard nih --src nih --out shards --size 48 --shard_size 20"
parts = 2
""")
    Path("one.toml").write_text("ranks_per_node = 1\nmax_restarts = 0\n")
    assert cli.main("submit chain chain.toml --time 5 --profile one.toml".split()) == 0
    shown = capsys.readouterr().out.splitlines()[-2:]
    assert shown[0].startswith("shards: queued as job") and ", after " in shown[1]
    run = Run(tmp_path / "run")
    assert not run.info.exists()  # its shards do not exist yet: the job itself freezes the run
    assert cli.main(["status", "chain.toml"]) == 0
    shown = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")]
    assert [line.split()[0] for line in shown] == ["shards", "simclr"]
    assert "simclr  PENDING (Dependency on job " in shown[1]
    assert end_of(run.submission, 300) == "COMPLETED"
    assert run.is_done and (tmp_path / "shards" / "dataset.json").is_file()
    assert all(map(private, (run.path, run.submission, tmp_path / "shards.job", tmp_path / "shards")))
    assert cli.main(["status", "chain.toml"]) == 0
    shown = [line.split()[:2] for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")]
    assert shown == [["shards", "done"], ["simclr", "done"]]
    assert cli.main("submit chain chain.toml --time 5 --profile one.toml".split()) == 0
    assert capsys.readouterr().out.split("\n")[:2] == ["shards: complete", "simclr: complete"]


def test_chain_ends_what_depends_on_a_failed_stage(cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("chain.toml").write_text(f"""
[[stage]]
name = "shards"
run = "shard nih --src nowhere --out shards"

[[stage]]
name = "simclr"
needs = ["shards"]
run = "pretrain --shards shards --out run {SMALL} --steps 4"
""")
    assert cli.main("submit chain chain.toml --time 5".split()) == 0
    assert end_of(tmp_path / "run" / "submission", 120) == "CANCELLED"


def test_a_study_runs_as_jobs_and_is_then_complete_on_the_login_node_as_well(cluster, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("study.toml").write_text("""
[[stage]]
name = "look"
needs = ["set"]
run = "verify {out}/set --decode false"

[[stage]]
name = "set"
run = "shard phantom --out {out}/set --patients 2 --size 16 --workers 0"
""")
    words = "study run study.toml --out o --profile local --time 5".split()
    assert cli.main(words) == 0
    shown = capsys.readouterr().out
    assert "set: queued as job" in shown and ", after " in shown and "cxrdist study status o" in shown
    assert cli.main(["study", "status", "o"]) == 0
    assert "job " in capsys.readouterr().out
    assert end_of(tmp_path / "o" / "stages" / "look" / "submission", 180) == "COMPLETED"
    assert cli.main(["study", "status", "o"]) == 0
    assert "2 stages: 2 complete" in capsys.readouterr().out
    assert cli.main(words) == 0
    assert capsys.readouterr().out.split("\n")[:2] == ["set: complete", "look: complete"]
    assert cli.main("study run study.toml --out o".split()) == 0
    assert capsys.readouterr().out.count("(complete)") == 2 and Path("o/report.html").is_file()


def test_doctor_looks_at_the_nodes_and_finds_a_folder_that_is_not_shared(cluster, tmp_path, capsys):
    assert cli.main(f"doctor --profile local --nodes 2 --out {tmp_path}".split()) == 0
    shown = capsys.readouterr().out
    assert shown.count("is shared and writable") == 2 and "nothing to fix" in shown
    if cluster.mode == "netns":  # each node has its own /dev/shm
        assert cli.main("doctor --profile local --nodes 1 --out /dev/shm".split()) == 1
        assert "use a folder all nodes share" in capsys.readouterr().out


def test_cancelled_run_says_so(cluster, shards, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = f"submit pretrain --nodes 1 --time 5 --shards {shards} --out run {SMALL} --steps 3".split()
    subprocess.run("sbatch -p high -N2 --exclusive -o /dev/null --wrap".split() + ["sleep 60"], check=True)
    assert cli.main(words) == 0
    assert cli.main(["cancel", "run"]) == 0
    assert "cancelled job" in capsys.readouterr().out
    assert end_of(tmp_path / "run" / "submission", 30) == "CANCELLED"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_twenty_preemptions_of_one_run_end_bit_identical_to_the_unbroken_run(cluster, tmp_path):
    (tmp_path / "one.toml").write_text('ranks_per_node = 1\ntime = "02:00:00"\n')
    config = drill.Config(
        kind="preempt", profile=str(tmp_path / "one.toml"), nodes=2, out=str(tmp_path), times=20, steps=66
    )  # fmt: skip
    facts = drill.measure(config)
    assert (facts["lost"], facts["repeated"]) == (0, 0)
    assert facts["same_samples"] and facts["same_weights"]
    assert len(facts["interruptions"]) == 20


@pytest.mark.slow
def test_pretraining_that_loses_its_first_node_sees_the_same_samples_on_the_one_that_is_left(cluster, shards, tmp_path):
    words = f"--shards {shards} {SMALL} --steps 60 --log_every 1 --checkpoint.every_steps 5"
    assert cli.main(f"submit pretrain --nodes 2 --min_nodes 1 --time 10 --out {tmp_path}/run {words}".split()) == 0
    run, unbroken = Run(tmp_path / "run"), Run(tmp_path / "unbroken")
    wait_until(lambda: len(run.read_log()) >= 7, 180, "the seventh step")
    lost = harness.NODES[0]  # the batch script and rank 0 run there
    cluster.crash_node(lost)
    subprocess.run(f"scontrol update NodeName={lost} State=DOWN Reason=test".split(), check=True)
    assert end_of(run.submission, 300) == "COMPLETED"
    assert cli.main(f"pretrain --out {unbroken.path} {words}".split()) == 0
    stretches = [json.loads(line)["nodes"] for line in (run.submission / "stretches.jsonl").read_text().splitlines()]
    assert stretches == [2, 1]
    assert run.read_done()["world"] == 2
    assert run.read_done()["order_sha256"] == unbroken.read_done()["order_sha256"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["kill", "resume"])
def test_drill_proves_that_a_run_survives(cluster, tmp_path, capsys, kind):
    assert cli.main(f"drill {kind} --nodes 2 --out {tmp_path} --steps 30".split()) == 0
    assert "0 of 30 steps lost" in capsys.readouterr().out
