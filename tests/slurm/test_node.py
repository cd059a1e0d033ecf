"""What one node makes of how its program ended."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from conftest import HERE

from slurm import node
from slurm.launch import StopSignals
from slurm.task import Task


@pytest.fixture
def task(tmp_path):
    """A task whose program ends with 0 and makes done-0; what it is to end with is `seen`."""
    (tmp_path / "seconds").write_text("0")
    return Task(
        kind="command", words=("part_worker", str(tmp_path), "0"), folder=str(tmp_path), done=str(tmp_path / "seen"),
        env=(("PYTHONPATH", str(HERE)),),
    )  # fmt: skip


def test_last_file_that_another_node_wrote_is_looked_for_before_the_job_goes_back(task, tmp_path):
    def appear_late() -> None:
        while not (tmp_path / "done-0").exists():
            time.sleep(0.05)
        time.sleep(1.0)
        Path(task.done).touch()

    threading.Thread(target=appear_late, daemon=True).start()
    assert node.node_main(task, StopSignals()) == 0


def test_program_that_never_writes_its_last_file_has_failed(task, monkeypatch, capsys):
    monkeypatch.setattr(node, "LATE_S", 0.2)
    assert node.node_main(task, StopSignals()) == 1
    assert "ended with 0 but did not write" in capsys.readouterr().err
