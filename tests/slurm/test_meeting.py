"""Where the nodes of a job meet."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from slurm import meeting
from slurm.errors import FailedError


def test_first_node_publishes_a_free_port_when_the_jobs_own_is_taken_and_the_others_read_it(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    place = meeting.place(tmp_path, "job 4711.0")
    found: list[str] = []
    waiting = threading.Thread(target=lambda: found.append(meeting.resolve(f"10.0.0.1:{place}", first=False)))
    waiting.start()
    taken = meeting.free_port(meeting.job_port())
    with socket.create_server(("", taken)):
        first = meeting.resolve(f"10.0.0.1:{place}", first=True)
    waiting.join(30)
    assert found == [first]
    assert int(first.partition(":")[2]) != taken
    assert meeting.resolve("10.0.0.1:29500", first=False) == "10.0.0.1:29500"


def test_port_whose_neighbours_are_needed_too_is_free_with_all_of_them():
    first = meeting.free_port(meeting.FIRST)
    with socket.create_server(("", first + 2)):
        assert meeting.free_port(first, offsets=(0, 2)) != first


def test_first_node_that_never_publishes_is_one_line():
    with pytest.raises(FailedError, match="published no port in 0 s"):
        meeting.published(meeting.place(Path("/nowhere"), "job 1.0"), 0.0)
