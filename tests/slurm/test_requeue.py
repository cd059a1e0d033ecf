"""What an exit status of a job means."""

from __future__ import annotations

import pytest

from slurm import environment, memory, requeue
from slurm.fence import Fence


@pytest.mark.parametrize("status", [75, 138, 140, 143])
def test_stopped_job_goes_back_to_the_queue_until_the_bound(tmp_path, status):
    assert requeue.decide(tmp_path, status, 2, "7", 1)[0]
    again, reason = requeue.decide(tmp_path, status, 2, "7", 2)
    assert not again and "max_requeues = 2" in reason


def test_failed_program_ends_the_job(tmp_path):
    assert requeue.decide(tmp_path, 1, 9, "7", 0) == (False, "it failed with exit code 1")


def test_failure_on_one_node_ends_the_job_although_srun_stopped_the_other(tmp_path):
    (tmp_path / requeue.failure_mark("7", "0")).touch()
    assert not requeue.decide(tmp_path, 75, 9, "7", 0)[0]
    assert requeue.decide(tmp_path, 75, 9, "7", 1)[0]


@pytest.mark.parametrize(
    ("own", "file", "text"),
    [
        ("5:cpu:/x\n4:memory:/slurm/job_7/task_0\n0::/", "memory/slurm/job_7/task_0/memory.oom_control", "under_oom 0"),
        ("0::/system.slice/job_7/task_0\n", "system.slice/job_7/task_0/memory.events", "max 9"),
    ],
)
def test_processes_killed_for_want_of_memory_are_counted_in_both_kinds_of_control_groups(tmp_path, own, file, text):
    (tmp_path / "own").write_text(own)
    assert memory.kills(tmp_path, tmp_path / "own") == 0
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(f"oom 5\n{text}\noom_kill 3\n")
    assert memory.kills(tmp_path, tmp_path / "own") == 3


def test_killed_job_is_requeued_three_times_only(tmp_path):
    answers = [requeue.decide(tmp_path, 137, 99, "7", restart)[0] for restart in range(4)]
    assert answers == [True, True, True, False]


def test_old_stretch_leaves_a_job_alone_that_has_been_restarted_without_it(tmp_path):
    Fence(tmp_path, "job 7.1").claim()
    assert not requeue.decide(tmp_path, 75, 9, "7", 0)[0]
    assert requeue.decide(tmp_path, 75, 9, "7", 1)[0]


def test_only_the_older_of_two_claims_is_lost(tmp_path):
    old, new = Fence(tmp_path, "job 7.0"), Fence(tmp_path, "job 7.1")
    old.claim()
    assert old.lost() is None
    new.claim()
    assert new.lost() is None
    assert old.lost() == "job 7.1 has taken over this run from job 7.0"
    old.claim()  # a late write of the old one cannot end the new one
    assert new.lost() is None


def test_record_of_the_environment_leaves_secrets_out(tmp_path, monkeypatch):
    for name in ("SLURM_JWT", "NCCL_SECRET", "MY_TOKEN", "HOME_PASSWORD", "AWS_ACCESS_KEY_ID"):
        monkeypatch.setenv(name, "hush")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    environment.write(tmp_path / "environment.json", {"NCCL_DEBUG": "INFO", "MY_TOKEN": "hush"})
    text = (tmp_path / "environment.json").read_text()
    assert "hush" not in text and '"SLURM_JOB_ID": "7"' in text and '"NCCL_DEBUG": "INFO"' in text
    assert (tmp_path / "environment.json").stat().st_mode & 0o077 == 0
