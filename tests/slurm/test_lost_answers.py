"""Submissions that go wrong between sbatch and its note, or whose shell belongs to another job: no job is unknown."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from conftest import wait_until

from jobs import cli
from slurm import client, jobs_file, unnoted
from slurm.errors import FailedError, InputError

pytestmark = pytest.mark.slurm


@pytest.fixture
def sbatch(tmp_path_factory, monkeypatch):
    """Return a maker of a command in front of the real sbatch: shell lines in which $SBATCH is the real one."""
    folder, real = tmp_path_factory.mktemp("bin"), shutil.which("sbatch")

    def put(lines: str) -> None:
        (folder / "sbatch").write_text(f"#!/bin/sh\nSBATCH={real}\n{lines}\n")
        (folder / "sbatch").chmod(0o755)

    put('exec $SBATCH "$@"')
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return put


@pytest.fixture
def full(cluster):
    """A cluster on which no node is free."""
    subprocess.run("sbatch -p high -N2 --exclusive -o /dev/null --wrap".split() + ["sleep 300"], check=True)
    wait_until(lambda: "R" in subprocess.check_output(["squeue", "-h", "-t", "R", "-o", "%t"], text=True), 30, "it")


def test_job_whose_number_never_came_back_is_found_in_the_queue(full, counting, sbatch, monkeypatch, capsys):
    monkeypatch.setattr(client, "SBATCH_S", 3.0)
    job = counting("--steps", "1", nodes=1)
    sbatch('$SBATCH "$@" >/dev/null; exec sleep 60')
    number = job.queue()
    assert jobs_file.job_ids(job.folder / "submission") == [number] and client.job(number).state == "PENDING"
    client.cancel([number])

    sbatch("exec sleep 60")  # this one never reaches SLURM
    with pytest.raises(FailedError, match="sbatch gave no answer in 3 s.* will show it"):
        job.queue()
    with pytest.raises(InputError, match="SLURM gave no answer to its submission at .* submit again in"):
        job.queue()
    capsys.readouterr()
    assert cli.main(["status", str(job.folder)]) == 0
    assert "UNKNOWN (SLURM gave no answer to the submission at" in capsys.readouterr().out
    # ... or it did, late: this is what the queue then looks like. It is also what `sbatch job.sbatch` by hand leaves.
    sbatch('exec $SBATCH "$@"')
    late = subprocess.check_output(["sbatch", "--parsable", "job.sbatch"], cwd=job.folder / "submission", text=True)
    with pytest.raises(InputError, match=f"in the queue already: job {late.strip()} is PENDING"):
        job.queue()
    assert cli.main(["status", str(job.folder)]) == 0
    assert "PENDING (" in (shown := capsys.readouterr().out) and f"job {late.strip()}" in shown
    assert cli.main(["cancel", str(job.folder)]) == 0
    assert f"cancelled job {late.strip()}" in capsys.readouterr().out


def test_job_that_cannot_be_noted_because_the_disk_is_full_is_cancelled_again(
    full, counting, sbatch, tmp_path, monkeypatch
):
    job = counting("--steps", "1", nodes=1)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", job.folder], check=True)
    try:
        sbatch(f'$SBATCH "$@" | tee {tmp_path}/number; cat /dev/zero >{job.folder}/fill 2>/dev/null; true')
        with pytest.raises(FailedError, match="could not be recorded in .*No space left.*; the job was cancelled"):
            job.queue()
        number = (tmp_path / "number").read_text().strip()
        assert client.job(number).state == "CANCELLED"
        # With no room left at all nothing is queued in the first place.
        monkeypatch.setattr(unnoted, "LATE_S", 0.0)
        sbatch(f"touch {tmp_path}/called")
        with pytest.raises(FailedError, match="No space left on device; nothing was queued"):
            job.queue()
        assert not (tmp_path / "called").exists()
    finally:
        subprocess.run(["umount", job.folder], check=True)


def test_job_submitted_from_inside_another_job_is_a_job_of_its_own(cluster, counting, monkeypatch, capsys):
    strange = {
        "SBATCH_PARTITION": "high", "SBATCH_NO_REQUEUE": "1", "SLURM_CPU_BIND": "mask_cpu:0x1",
        "SLURM_ARRAY_JOB_ID": "99", "SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_MAX": "5", "SLURM_JOB_ID": "98",
        "SLURM_JOB_NODELIST": "nowhere", "SLURM_RESTART_COUNT": "4", "SRUN_CPUS_PER_TASK": "7",
        "SLURM_NTASKS": "9", "SINFO_PARTITION": "nowhere",
        "WORLD_SIZE": "4", "RANK": "3", "SLURM_CLUSTERS": "cxrdist",
    }  # fmt: skip
    for name, value in strange.items():
        monkeypatch.setenv(name, value)
    job = counting("--steps", "2", "--step_seconds", "0", nodes=1)
    number = job.queue()
    assert jobs_file.job_ids(job.folder / "submission") == [f"{number};cxrdist"]
    for name in strange:
        monkeypatch.delenv(name)
    assert job.wait_for_end() == "COMPLETED", job.log()
    shown = subprocess.check_output(["scontrol", "show", "job", number], text=True)
    assert "Partition=main" in shown and "Requeue=1" in shown
    assert {line["world"] for line in job.lines()} == {1} and (job.folder / "submission/owner.json").is_file()
    found = json.loads((job.folder / f"submission/environment-{number}.json").read_text())["variables"]
    assert not {"SLURM_ARRAY_TASK_ID", "SLURM_CPU_BIND", "SLURM_CLUSTERS"} & set(found)
    # In another shell, the cluster that the job is on is still known.
    assert client.job(jobs_file.job_ids(job.folder / "submission")[0]).state == "COMPLETED"
    # The same file sent by hand from inside an array finds its task, and that nothing is left to do.
    sent = subprocess.check_output(
        [
            "env",
            "SLURM_ARRAY_TASK_ID=3",
            "SLURM_ARRAY_JOB_ID=99",
            "sbatch",
            "--parsable",
            job.folder / "submission/job.sbatch",
        ],
        text=True,
    )
    job.job_id = sent.strip()
    assert job.wait_for_end() == "COMPLETED", job.log()
    assert "nothing left to do" in job.log() and not list((job.folder / "submission").glob("owner-part*"))


def test_users_own_defaults_for_sbatch_are_named_and_not_used(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SBATCH_ACCOUNT", "mine")
    assert cli.main("submit collect runs --out results.parquet --dry_run".split()) == 0
    assert "cxrdist: SBATCH_ACCOUNT: not used; the profile decides" in capsys.readouterr().err
