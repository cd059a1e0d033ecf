"""The launcher on this machine: real torchrun, real processes, real signals.

The ranks import torch (--gloo) where that is the point: whose torch it is, how long it takes, what gloo makes of a
restart. tests/cxrdist/pretrain/test_pretrain_kills.py does the same to ranks that train.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from slurm import launch, meeting, processes
from slurm.errors import InputError
from tests.shadows import shadows
from tests.slurm.counting_worker import unbroken

HERE = Path(__file__).parent
ENV = {"PYTHONPATH": str(HERE)}
START = """
import sys
from slurm import launch
sys.exit(launch.local("counting_worker", sys.argv[2:], nproc=int(sys.argv[1])))
"""


def start(nproc: int, folder: Path, *options: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-c", START, str(nproc), str(folder), *options]
    return subprocess.Popen(words, env={**os.environ, **ENV})


def wait_for_step(folder: Path, step: int) -> None:
    deadline = time.monotonic() + 60
    while len(steps(folder)) < step:
        assert time.monotonic() < deadline, f"step {step} was not reached"
        time.sleep(0.05)


def steps(folder: Path) -> list[int]:
    log = folder / "log.jsonl"
    return [json.loads(line)["step"] for line in log.read_text().splitlines()] if log.exists() else []


def final(folder: Path) -> dict:
    return json.loads((folder / "final.json").read_text())


def test_two_agents_of_two_ranks_meet_on_one_machine_whatever_the_working_folder_holds(tmp_path, monkeypatch):
    monkeypatch.chdir(shadows(tmp_path / "work"))
    words = [str(tmp_path), "--steps", "3", "--step_seconds", "0", "--gloo"]
    assert launch.local("counting_worker", words, nproc=2, nnodes=2, env=ENV) == 0
    assert json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])["world"] == 4
    assert steps(tmp_path) == [1, 2, 3]


def test_stop_signal_to_the_launcher_saves_once_and_the_next_start_goes_on_at_the_next_step(tmp_path):
    for starts, number in enumerate((signal.SIGTERM, signal.SIGINT), 1):
        process = start(2, tmp_path, "--steps", "30", "--step_seconds", "0.2", "--save_every", "1000")
        wait_for_step(tmp_path, len(steps(tmp_path)) + 4)
        process.send_signal(number)
        assert process.wait(180) == 0
        seen = steps(tmp_path)
        assert len(seen) < 30 and not (tmp_path / "final.json").exists()
        assert len((tmp_path / "saves.jsonl").read_text().splitlines()) == starts
    words = [str(tmp_path), "--steps", "30", "--step_seconds", "0"]
    assert launch.local("counting_worker", words, nproc=2, env=ENV) == 0
    assert steps(tmp_path) == list(range(1, 31))
    assert final(tmp_path) == unbroken(30, world=2)


def test_signal_during_the_imports_is_not_lost(tmp_path):
    process = start(2, tmp_path, "--steps", "1000", "--step_seconds", "0.05", "--gloo")
    time.sleep(0.7)  # the ranks do not exist yet, or are importing torch
    process.send_signal(signal.SIGUSR2)
    assert process.wait(180) == 0
    assert len(steps(tmp_path)) < 100


def test_signal_to_every_process_of_the_step_as_slurm_sends_it_loses_nothing(tmp_path):
    process = start(2, tmp_path, "--steps", "1000", "--step_seconds", "0.1", "--save_every", "1000")
    wait_for_step(tmp_path, 2)
    everyone = [process.pid, *processes.descendants(process.pid)]
    assert len(everyone) >= 4  # launcher, agent, two ranks
    processes.send(everyone, signal.SIGUSR1)
    processes.send(everyone, signal.SIGTERM)
    assert process.wait(180) == 0
    saved = json.loads((tmp_path / "checkpoint.json").read_text())["step"]
    assert saved == steps(tmp_path)[-1]


def test_stop_signals_that_go_on_while_the_ranks_end_do_not_turn_success_into_failure(tmp_path):
    process = start(2, tmp_path, "--steps", "1000", "--step_seconds", "0.1", "--save_every", "1000")
    wait_for_step(tmp_path, 2)
    while process.poll() is None:
        processes.send([process.pid, *processes.descendants(process.pid)], signal.SIGUSR2)
        time.sleep(0.01)
    assert process.returncode == 0


def test_one_rank_alone_obeys_the_signal_too(tmp_path):
    process = start(1, tmp_path, "--steps", "1000", "--step_seconds", "0.1")
    wait_for_step(tmp_path, 2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(180) == 0
    assert json.loads((tmp_path / "checkpoint.json").read_text())["step"] == steps(tmp_path)[-1]


def test_killed_rank_is_restarted_from_the_last_checkpoint(tmp_path):
    words = [str(tmp_path), "--steps", "30", "--step_seconds", "0", "--save_every", "10", "--die_at", "17", "--gloo"]
    assert launch.local("counting_worker", words, nproc=2, max_restarts=1, env=ENV) == 0
    assert sorted(set(steps(tmp_path))) == list(range(1, 31))
    assert final(tmp_path) == unbroken(30, world=2)


def test_failing_worker_gives_a_failing_exit_code_and_leaves_no_process(tmp_path):
    process = start(2, tmp_path, "--fail_at", "2")
    wait_for_step(tmp_path, 1)
    below = processes.descendants(process.pid)
    assert process.wait(180) == 1
    assert not [pid for pid in below if _runs(pid)]


def test_killed_launcher_takes_its_agent_and_ranks_with_it(tmp_path):
    process = start(2, tmp_path, "--steps", "1000", "--step_seconds", "0.1")
    wait_for_step(tmp_path, 2)
    below = processes.descendants(process.pid)
    process.kill()
    process.wait(10)
    deadline = time.monotonic() + 60
    while any(_runs(pid) for pid in below):
        assert time.monotonic() < deadline, "orphans went on"
        time.sleep(0.1)


def test_ranks_whose_agent_is_killed_in_the_middle_end_too(tmp_path):
    launcher = start(2, tmp_path, "--steps", "1000", "--step_seconds", "0.1")
    wait_for_step(tmp_path, 2)
    (agent,) = processes.children(launcher.pid)
    ranks = processes.children(agent)
    assert len(ranks) == 2
    os.kill(agent, signal.SIGKILL)
    assert launcher.wait(180) == 137
    deadline = time.monotonic() + 60
    while any(_runs(rank) for rank in ranks):
        assert time.monotonic() < deadline, "orphans went on"
        time.sleep(0.1)
    assert len(steps(tmp_path)) < 1000


def test_ranks_whose_agent_is_killed_while_they_import_end_without_a_step(tmp_path):
    launcher = start(2, tmp_path, "--steps", "200", "--gloo")
    deadline = time.monotonic() + 60
    ranks: list[int] = []
    while (
        len(ranks) < 2 and time.monotonic() < deadline
    ):  # they have just been started and are far from their first step
        agents = processes.children(launcher.pid)
        ranks = [rank for agent in agents for rank in processes.children(agent)]
        time.sleep(0.01)
    os.kill(agents[0], signal.SIGKILL)
    assert launcher.wait(180) == 137
    deadline = time.monotonic() + 60
    while any(_runs(rank) for rank in ranks) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [rank for rank in ranks if _runs(rank)]
    assert steps(tmp_path) == []


def test_zero_ranks_are_refused():
    with pytest.raises(InputError, match="nproc 0"):
        launch.local("counting_worker", [], nproc=0)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_coordinates_of_another_launcher_in_the_environment_are_not_believed(tmp_path, monkeypatch):
    strange = {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "3", "LOCAL_WORLD_SIZE": "4", "MASTER_ADDR": "10.1.1.1"}
    strange |= {"MASTER_PORT": "1", "GROUP_RANK": "1", "TORCHELASTIC_RUN_ID": "none", "PET_STANDALONE": "1"}
    for name, value in strange.items():
        monkeypatch.setenv(name, value)
    for nproc in (1, 2):
        words = [str(tmp_path / str(nproc)), "--steps", "2", "--step_seconds", "0"]
        (tmp_path / str(nproc)).mkdir()
        assert launch.local("counting_worker", words, nproc=nproc, env=ENV, patience_s=20) == 0
        assert json.loads((tmp_path / str(nproc) / "log.jsonl").read_text().splitlines()[0])["world"] == nproc


def test_first_rank_is_on_the_first_node_whatever_the_order_of_the_addresses(tmp_path):
    endpoint, commands = f"127.0.0.1:{meeting.place(tmp_path, 'order')}", []
    for node, address in enumerate(("127.0.0.9", "127.0.0.10")):  # as text, the second comes first
        commands.append(launch.torchrun(
            "where_worker", [str(tmp_path / str(node))], nproc=1, nnodes=2, endpoint=endpoint, run_id="order",
            node=node, local_addr=address, max_restarts=0,
        ))  # fmt: skip
    assert launch.run_shielded(commands, env=ENV, threads=1, patience_s=10).code == 0
    assert [(tmp_path / name).read_text() for name in "01"] == ["0 127.0.0.9", "1 127.0.0.9"]


def test_ranks_that_do_not_stop_when_asked_are_ended_after_a_bound(tmp_path):
    code = START.replace("nproc=int(sys.argv[1])", "nproc=1, patience_s=2")
    words = [sys.executable, "-c", code, "1", str(tmp_path), "--deaf", "--steps", "100000", "--step_seconds", "0.1"]
    process = subprocess.Popen(words, env={**os.environ, **ENV}, stderr=subprocess.PIPE, text=True)
    wait_for_step(tmp_path, 1)
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "ending the workers at once: still running 2 s after they were asked to stop" in said
