"""What goes wrong on a cluster, as a user meets it: one clear line, an exit code, nothing written, never a hang."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import cluster as harness
import pytest
from conftest import hosts_of_nodes, wait_until

from jobs import cli
from results.run import Run
from slurm import client, jobs_file

pytestmark = pytest.mark.slurm

SMALL = "--arch test_resnet --image_size 32 --global_batch 16 --device cpu"
FULL = "sbatch -p high -N2 --exclusive -o /dev/null --wrap".split() + ["sleep 120"]


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def full(cluster):
    """A cluster on which no node is free."""
    subprocess.run(FULL, check=True)
    wait_until(lambda: "R" in subprocess.check_output(["squeue", "-h", "-o", "%t"], text=True), 30, "the other job")


def one_line(capsys) -> str:
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("cxrdist: "), error
    return error


def without_slurm(cluster, monkeypatch, folder: Path) -> str:
    monkeypatch.setenv("PATH", str(folder))
    return "run this on the cluster's login node"


def without_controller(cluster, monkeypatch, folder: Path) -> str:
    _configure(cluster, monkeypatch, folder, f"SlurmctldPort={harness.PORT}", "SlurmctldPort=1")
    return "controller does not answer"


def without_munge(cluster, monkeypatch, folder: Path) -> str:
    _configure(cluster, monkeypatch, folder, "/munge/socket", "/munge/nobody")
    return "munge, SLURM's authentication, does not answer here"


def _configure(cluster, monkeypatch, folder: Path, old: str, new: str) -> None:
    (folder / "gres.conf").write_text("")
    (folder / "slurm.conf").write_text(cluster.conf.read_text().replace(old, new))
    monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))


@pytest.mark.parametrize("broken", [without_slurm, without_controller, without_munge])
def test_cluster_that_does_not_answer_is_one_line_for_every_command(
    cluster, counting, shards, here, tmp_path_factory, capsys, monkeypatch, broken
):
    job = counting("--steps", "3000", nodes=1)
    job.queue()
    said = broken(cluster, monkeypatch, tmp_path_factory.mktemp("conf"))
    capsys.readouterr()
    assert cli.main(f"submit pretrain --shards {shards} --out new {SMALL}".split()) == 1
    assert said in one_line(capsys)
    assert not Path("new").exists()
    assert cli.main(["cancel", "run"]) == 1
    assert said in one_line(capsys)
    assert cli.main(["status", "run"]) == 0  # what the folder tells is still told
    shown = capsys.readouterr().out
    assert shown.startswith("run  UNKNOWN (") and said in shown
    assert cli.main(["drill", "preempt", "--out", "drill"]) == 1
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert cli.main(["doctor", "--profile", "local"]) == 1
    assert "FAIL  SLURM" in capsys.readouterr().out
    monkeypatch.undo()
    assert client.job(job.job_id).active  # and nothing was done to it


def test_job_that_waits_on_a_full_partition_says_why_and_may_be_killed_there(full, shards, here, capsys):
    words = f"submit pretrain --nodes 2 --time 5 --shards {shards} --out run {SMALL}".split()
    assert cli.main(words) == 0
    job_id = jobs_file.job_ids(Path("run/submission"))[-1]
    capsys.readouterr()
    wait_until(lambda: client.job(job_id).reason not in ("", "None"), 30, "a reason")
    assert cli.main(["status", "run"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("run  PENDING (") and f"job {job_id}" in shown
    assert cli.main(["logs", "run"]) == 0
    assert "has written nothing yet" in capsys.readouterr().out
    subprocess.run(["scancel", job_id], check=True)  # by somebody else
    wait_until(lambda: not client.job(job_id).active, 30, "the end")
    assert cli.main(["logs", "-f", "run"]) == 0
    assert f"job {job_id} is CANCELLED and has written nothing" in capsys.readouterr().err
    assert cli.main(["status", "run"]) == 1
    shown = capsys.readouterr().out
    assert "run  CANCELLED" in shown and "goes on from where it stopped with: sbatch " in shown
    assert cli.main(words) == 0  # the same command again takes up the same run
    assert cli.main(["cancel", "run"]) == 0


def test_checks_of_a_full_cluster_end_in_time_and_leave_nothing_in_the_queue(full, here, capsys):
    assert cli.main("doctor --profile local --nodes 2 --wait 4".split()) == 1
    assert "2 not free within 4 s" in capsys.readouterr().out
    assert cli.main("drill preempt --nodes 2 --timeout 4 --out drill".split()) == 1
    assert "did not reach step 20 in time" in capsys.readouterr().err
    waiting = subprocess.check_output(["squeue", "-h", "-t", "PENDING", "-o", "%j"], text=True)
    assert waiting == ""


def test_run_of_another_configuration_is_refused_and_stays_as_it_was(cluster, shards, here, capsys):
    assert cli.main(f"submit pretrain --time 5 --shards {shards} --out run {SMALL} --steps 3".split()) == 0
    assert cli.main(["cancel", "run"]) == 0
    # The job may have begun; the node's own line about the end is in the log once the job has left the queue.
    wait_until(lambda: not subprocess.check_output(["squeue", "-h"]), 30, "the end of the cancelled job")
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    capsys.readouterr()
    assert cli.main(f"submit pretrain --time 5 --shards {shards} --out run {SMALL} --steps 4".split()) == 2
    assert "holds another run" in one_line(capsys)
    assert before == {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    assert len(jobs_file.job_ids(Path("run/submission"))) == 1


def test_shard_set_of_other_settings_is_not_taken_for_complete(cluster, here, capsys):
    assert cli.main("shard phantom --out nih --images 30 --size 48 --layout_only true --workers 1".split()) == 0
    assert cli.main("shard nih --src nih --out shards --size 48 --workers 1".split()) == 0
    capsys.readouterr()
    assert cli.main("submit shard nih --src nih --out shards --size 48 --parts 2".split()) == 0
    assert "is complete: nothing to queue" in capsys.readouterr().out
    assert cli.main("submit shard nih --src nih --out others --size 48 --parts 1002".split()) == 2
    assert "--parts 1002: this cluster takes job arrays of at most 1001 parts" in one_line(capsys)
    assert not Path("others.job").exists()
    assert cli.main("submit shard nih --src nih --out shards --size 32 --parts 2".split()) == 2
    assert "holds another shard set (" in (error := one_line(capsys)) and "size 48, not 32" in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--partition gpuu", "partition 'gpuu' is unknown; this cluster has high, main, preempt"),
        ("--out 50%j", "SLURM gives '%' in the path of a log a meaning of its own"),
        ("--nodes 4", "has 2 nodes, fewer than the 4 asked for"),
        ("--time 3-0", "allows 1440 minutes, less than time = 3-0"),
        ("--profile wrong.toml", "unknown key 'partion'; did you mean partition?"),
        ("--profile gpus.toml", "2 GPUs on a node, fewer than gpus_per_node = 4"),
        ("--profile account.toml", "sbatch: "),
    ],
)
def test_request_that_the_cluster_cannot_meet_is_one_line(cluster, shards, here, capsys, words, message):
    Path("wrong.toml").write_text('partion = "main"\n')
    Path("gpus.toml").write_text("gpus_per_node = 4\n")
    Path("account.toml").write_text('[sbatch]\nlicenses = "nobody-has-this:1"\n')
    code = cli.main(f"submit pretrain --out run {words} --shards {shards} {SMALL}".split())
    assert code == (1 if message == "sbatch: " else 2)
    assert message in one_line(capsys)
    assert jobs_file.job_ids(Path("run/submission")) == [] and not Path("50%j").exists()


def test_head_node_that_nobody_can_resolve_fails_the_job_in_one_line(cluster, counting, tmp_path):
    if cluster.mode != "netns":
        pytest.skip("netns: one host name for all nodes in loopback mode")
    # The nodes forget each other's names, and SLURM knows no address (the rest of scontrol stays as it is).
    stub = tmp_path / "bin" / "scontrol"
    stub.parent.mkdir()
    stub.write_text(f'#!/bin/sh\n[ "$2" = node ] && exit 1\nexec {shutil.which("scontrol")} "$@"\n')
    stub.chmod(0o755)
    with hosts_of_nodes(cluster, tmp_path, lambda node: "127.0.0.1 localhost\n"):
        job = counting("--steps", "9", setup=(f"export PATH={stub.parent}:$PATH",))
        job.queue()
        assert job.wait_for_end(120) == "FAILED", job.log()
    said = [line for line in job.log().splitlines() if "cannot be resolved" in line]
    assert said and all(line.startswith("cxrdist: the node cx") for line in said)
    assert "Traceback" not in job.log() and "goes back to the queue" not in job.log()


def test_login_node_commands_import_nothing_heavy(cluster, shards, here):
    assert cli.main(f"submit pretrain --time 5 --shards {shards} --out run {SMALL} --steps 3".split()) == 0
    again = f"submit pretrain --shards {shards} --out run {SMALL} --steps 3 --dry_run"
    for words in ("status run", "logs run", again, "cancel run"):
        code = (
            "import sys; from jobs import cli; code = cli.main(sys.argv[1:])\n"
            "heavy = {'torch', 'ray', 'pandas', 'pyarrow', 'numpy', 'scipy', 'sklearn', 'timm', 'submitit'}\n"
            "print(sorted(heavy & set(sys.modules)), file=sys.stderr); sys.exit(code)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, *words.split()], capture_output=True, text=True, env=dict(os.environ)
        )
        assert (done.returncode, done.stderr.splitlines()[-1]) == (0, "['submitit']" if "submit" in words else "[]")
    assert not Run("run").is_done
