"""The array executor's own decisions, with what SLURM says written down; tests/slurm has it on a real cluster."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from cxrdist.errors import FailedError
from cxrdist.sweep import slurm_array
from cxrdist.sweep.config import ArrayConfig, SweepConfig
from cxrdist.sweep.folder import SweepFolder
from slurm import checks, client
from slurm.errors import InputError


def test_more_cells_than_an_array_has_parts_share_them() -> None:
    parts = [[{"signature": str(number)}] for number in range(7)]
    found = slurm_array._at_most(3, parts)
    assert [[cell["signature"] for cell in part] for part in found] == [["0", "3", "6"], ["1", "4"], ["2", "5"]]
    assert slurm_array._at_most(9, parts) == parts


def test_an_array_that_was_cancelled_is_not_queued_again_though_a_part_failed_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = ["JobId=5 ArrayJobId=5 ArrayTaskId=0 JobState=FAILED", "JobId=6 ArrayJobId=5 JobState=CANCELLED"]
    monkeypatch.setattr(client, "call", lambda *words, **more: "\n".join(lines))
    with pytest.raises(FailedError, match="array 5 was cancelled"):
        slurm_array._refuse_cancelled("5")
    lines[1] = lines[1].replace("CANCELLED", "COMPLETED")
    slurm_array._refuse_cancelled("5")


@pytest.fixture
def queued(tmp_path: Path) -> Path:
    """A sweep's folder whose array was sent without an answer."""
    folder = tmp_path / "array"
    folder.mkdir()
    (folder / "job.sbatch").write_text("#!/bin/bash\n")
    (folder / "jobs.json").write_text(json.dumps([{"job_id": None, "reserved_at": time.time()}]))
    (folder / "parts.json").write_text('[["a"], ["b"]]')
    return tmp_path


def test_an_array_whose_number_was_never_told_is_followed(queued: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "sent_from", lambda script: ["12"])
    monkeypatch.setattr(client, "job", lambda name: client.JobInfo(job_id=name, state="RUNNING"))
    assert slurm_array.active_job(queued) == "12"


def test_cells_of_an_array_that_may_still_appear_are_not_dealt_anew(
    queued: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "sent_from", lambda script: [])
    monkeypatch.setattr(client, "max_array_size", lambda: 1001)
    monkeypatch.setattr(checks, "check", lambda request: None)
    config = SweepConfig(out=str(queued), executor="slurm-array", array=ArrayConfig(profile="local"))
    ledger = SweepFolder(queued)
    ledger.spec.write_text(json.dumps({"cells": [], "retries": 2}))
    assert slurm_array.active_job(queued) is None
    with pytest.raises(InputError, match="may still appear in the queue"):
        slurm_array.ArrayDriver(config, [], [], ledger)._queue()
    assert (queued / "array" / "parts.json").read_text() == '[["a"], ["b"]]'
