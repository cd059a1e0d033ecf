"""Going back to the queue one part at a time, and going on as another job where requeueing is forbidden."""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import HERE, wait_until

from jobs import cli
from slurm import client, handover, jobs_file, preemption, profiles, requeue, submit
from slurm.errors import FailedError


class Parts:
    """A job of tests/slurm/part_worker.py, a job that waits for it, and their folder."""

    def __init__(self, folder: Path, *, array: int | None = None, partition: str = "main", max_requeues: int = 9):
        self.folder, self.submission = folder, folder / "submission"
        local = profiles.load("local")
        profile = dataclasses.replace(
            local, env={"PYTHONPATH": str(HERE)}, time="5", ranks_per_node=1, max_requeues=max_requeues
        )
        (folder / "seconds").write_text("60")
        task = submit.task_for(
            profile, kind="command", words=("part_worker", str(folder), "{part}"), folder=str(self.submission),
            done=None if array else str(folder / "done-0"),
        )  # fmt: skip
        self.job = submit.submit(
            submit.Request(name="parts", task=task, profile=profile, array=array, partition=partition)
        )
        words = f"sbatch --parsable -d afterok:{self.job} --kill-on-invalid-dep=yes -o /dev/null --wrap".split()
        self.after = subprocess.check_output([*words, "true"], text=True).strip()

    def starts(self, part: int = 0) -> int:
        path = self.folder / f"started-{part}"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def wait_for_start(self, part: int = 0, number: int = 1) -> None:
        wait_until(lambda: self.starts(part) >= number, 60, f"start {number} of part {part}: {self.log()}")

    def newest(self) -> str:
        return jobs_file.job_ids(self.submission)[-1]

    def log(self) -> str:
        return "".join(path.read_text() for path in sorted(self.submission.glob("*_log.out")))


@pytest.fixture
def parts(cluster, tmp_path) -> Callable[..., Parts]:
    return lambda **options: Parts(tmp_path, **options)


def forbid_requeue(job: str) -> None:
    subprocess.run(["scontrol", "update", f"JobId={job}", "Requeue=0"], check=True)


def stop(job: str) -> None:
    subprocess.run(["scancel", "--signal=USR2", job], check=True)


@pytest.mark.slurm
def test_stopped_part_of_an_array_goes_back_alone_or_as_a_new_job_and_the_merge_waits_for_it(parts):
    job = parts(array=3)
    for part in range(3):
        job.wait_for_start(part)
    # The part that has the array's own number; with that number all three would be requeued.
    rows = [line.split() for line in subprocess.check_output(
        ["squeue", "-h", "-j", job.job, "-o", "%A %K"], text=True).splitlines()]  # fmt: skip
    own = next(int(part) for number, part in rows if number == job.job)
    other = (own + 1) % 3
    stop(f"{job.job}_{own}")
    job.wait_for_start(own, 2)
    assert [job.starts(part) for part in range(3)].count(1) == 2
    forbid_requeue(f"{job.job}_{other}")
    stop(f"{job.job}_{other}")
    job.wait_for_start(other, 2)
    assert client.job(job.after).state == "PENDING"  # the third part is still at work
    stop(f"{job.job}_{3 - own - other}")
    wait_until(lambda: not client.job(job.after).active, 60, f"the job that waits: {job.log()}", 0.5)
    assert client.job(job.after).state == "COMPLETED"
    assert all((job.folder / f"done-{part}").exists() for part in range(3))
    assert [job.starts(part) for part in range(3)] == [2, 2, 2]
    assert jobs_file.job_ids(job.submission)[0] == job.job and len(jobs_file.job_ids(job.submission)) == 2


@pytest.mark.slurm
def test_job_that_may_not_be_requeued_goes_on_as_a_new_job_within_the_bound_and_dependents_wait_for_it(parts, capsys):
    job = parts(max_requeues=1)
    (job.folder / "always").touch()
    job.wait_for_start()
    forbid_requeue(job.job)
    stop(job.job)
    job.wait_for_start(number=2)
    new = job.newest()
    assert new != job.job and f"job {new} goes on in its place" in job.log()
    assert "Requested operation is presently disabled" in job.log()
    waiting = client.job(job.after)
    assert (waiting.state, waiting.waits_for) == ("PENDING", (new,))
    assert cli.main(["status", str(job.folder)]) == 0
    assert f"RUNNING  job {new}" in (shown := capsys.readouterr().out) and "1 restarts" in shown
    forbid_requeue(new)
    stop(new)
    wait_until(lambda: not client.job(new).active, 60, "its end", 0.5)
    assert "it was requeued 1 times already (max_requeues = 1)" in job.log()
    wait_until(lambda: not client.job(job.after).active, 30, "the end of what waits", 0.5)
    assert client.job(job.after).state == "CANCELLED"


@pytest.mark.slurm
def test_job_cancelled_for_another_one_without_grace_goes_on_but_one_cancelled_by_its_user_does_not(parts):
    subprocess.run("scontrol update PartitionName=preempt PreemptMode=CANCEL GraceTime=0".split(), check=True)
    try:
        job = parts(partition="preempt")
        (job.folder / "always").touch()
        high = "sbatch --parsable -p high -N2 --exclusive -o /dev/null --wrap true".split()
        job.wait_for_start()
        subprocess.run(high, check=True)
        job.wait_for_start(number=2)  # requeueing is allowed
        assert client.job(job.job).restarts == 1
        forbid_requeue(job.job)
        subprocess.run(high, check=True)
        job.wait_for_start(number=3)
        new = job.newest()
        assert new != job.job and client.job(job.job).state == "PREEMPTED"
        assert client.job(job.after).state == "PENDING"
        subprocess.run(["scancel", new], check=True)
        wait_until(lambda: not client.job(new).active, 30, "its end", 0.5)
        assert client.job(new).state == "CANCELLED" and "it was cancelled" in job.log()
        assert job.newest() == new and client.sent_from(job.submission / "job.sbatch") == []
    finally:
        subprocess.run("scontrol update PartitionName=preempt PreemptMode=REQUEUE GraceTime=20".split(), check=True)


@pytest.mark.parametrize(
    ("expression", "job", "changed"),
    [
        ("afterok:12(unfulfilled)", "12", "afterok:99"),
        ("afterok:12(unfulfilled),afterany:13(unfulfilled)", "13", "afterok:12,afterany:99"),
        ("afterok:12(unfulfilled)?afterok:13(failed)", "12", "afterok:99?afterok:13"),
        ("after:12+5(unfulfilled)", "12", "after:99+5"),
        ("afterok:12_3(unfulfilled),afterok:12_4(unfulfilled)", "12_3", "afterok:99,afterok:12_4"),
        ("afterok:123(unfulfilled)", "12", None),
        ("singleton(unfulfilled)", "12", None),
        ("(null)", "12", None),
    ],
)
def test_dependency_on_a_job_becomes_one_on_the_job_that_goes_on(expression, job, changed):
    assert handover.replaced(expression, job, "99") == changed


def test_controller_that_cannot_be_reached_is_asked_again_and_a_refusal_is_not(monkeypatch):
    answers = iter([
        client.explain("scontrol", "Unable to contact slurm controller (connect failure)"),
        client.explain("scontrol", "slurm_load_jobs error: Socket timed out on send/recv operation"),
        client.explain("scontrol", "Job/step is in transition"),
        client.explain("scontrol", "Job is pending execution for job 7"),
    ])  # fmt: skip
    asked: list[FailedError] = []

    def call(*words: str) -> str:
        asked.append(next(answers))
        raise asked[-1]

    monkeypatch.setattr(client, "call", call)
    monkeypatch.setattr(requeue.time, "sleep", lambda seconds: None)
    assert requeue.requeue("7") is None and len(asked) == 4
    answers = iter([client.explain("scontrol", "Requested operation is presently disabled for job 7")])
    assert "presently disabled" in (requeue.requeue("7") or "")


@pytest.mark.slurm
def test_doctor_tells_what_a_partition_that_cancels_means_for_a_run(cluster):
    subprocess.run("scontrol update PartitionName=preempt PreemptMode=CANCEL GraceTime=0".split(), check=True)
    try:
        how = preemption.of("preempt")
        assert (how.mode, how.grace_s, how.kill_wait_s, how.user_signal) == ("CANCEL", 0, 5, True)
        found, fix = preemption.meaning(how)
        assert "no grace time, 5 s of KillWait" in found and "what is not saved within 5 s is lost" in fix
    finally:
        subprocess.run("scontrol update PartitionName=preempt PreemptMode=REQUEUE GraceTime=20".split(), check=True)
    assert preemption.meaning(preemption.of("preempt"))[1] == ""
    assert preemption.of(None).mode == "OFF"
