"""Nodes whose own names mean 127.0.1.1, as Debian writes them into /etc/hosts: two network namespaces play them."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm import hosts, node
from slurm.task import Task

HERE = Path(__file__).parent
NODES = {"cxnode1": "10.77.0.1", "cxnode2": "10.77.0.2"}
START = """
import sys
from slurm import hosts, launch, node
own, peer, index, out = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
address = hosts.address(own, peer)
words = launch.torchrun(
    "gloo_worker", [out], nproc=1, nnodes=2, endpoint="10.77.0.1:29711", run_id="two", node=index,
    local_addr=address, max_restarts=0, join_timeout_s=60,
)
from slurm.task import Task
env = node.rank_environment(Task(kind="ranks", words=(), folder=out), address)
sys.exit(launch.run_shielded([words], env=env, threads=1, patience_s=60).code)
"""


def test_the_interface_of_an_address_is_found():
    assert hosts.interface("127.0.0.1") == "lo" and hosts.interface("192.0.2.77") is None


def test_the_ranks_variables_name_the_interface_unless_the_user_did(monkeypatch):
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    task = Task(kind="ranks", words=(), folder=".", env=(("A", "1"),), gpus_per_node=2)
    assert node.rank_environment(task, "127.0.0.1") == {
        "A": "1", "CXRDIST_GPUS_PER_NODE": "2", "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    assert "GLOO_SOCKET_IFNAME" not in node.rank_environment(task, "192.0.2.77")
    own = Task(kind="ranks", words=(), folder=".", env=(("GLOO_SOCKET_IFNAME", "ib0"),))
    assert node.rank_environment(own, "127.0.0.1")["GLOO_SOCKET_IFNAME"] == "ib0"
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "ib1")
    assert "GLOO_SOCKET_IFNAME" not in node.rank_environment(task, "127.0.0.1")


def inside(pid: int, *words: str) -> list[str]:
    return ["nsenter", "-t", str(pid), "--net", "--mount", "--uts", *words]


@pytest.fixture
def two_hosts(tmp_path) -> Iterator[list[int]]:
    """Process ids to enter two hosts by, joined by one cable; each knows its own name as 127.0.1.1."""
    tools = ("unshare", "nsenter", "ip")
    if os.geteuid() or not all(map(shutil.which, tools)):
        pytest.skip("network namespaces: need root, unshare, nsenter and ip")
    with contextlib.ExitStack() as stack:
        started = []
        for _ in NODES:
            process = subprocess.Popen(["unshare", "--net", "--mount", "--uts", "sleep", "300"])
            stack.callback(process.wait)
            stack.callback(process.kill)
            started.append(process)
        deadline = time.monotonic() + 10
        while not all(Path(f"/proc/{p.pid}/comm").read_text().strip() == "sleep" for p in started):
            if time.monotonic() > deadline or any(p.poll() is not None for p in started):
                pytest.skip("network namespaces: unshare is not allowed here")
            time.sleep(0.05)
        first, second = (process.pid for process in started)
        words = ["ip", "link", "add", "ether0", "type", "veth", "peer", "name", "ether0", "netns", str(second)]
        if subprocess.run(inside(first, *words), capture_output=True).returncode:
            pytest.skip("network namespaces: no virtual cables here")
        for pid, (name, address) in zip((first, second), NODES.items(), strict=True):
            table = tmp_path / f"hosts-{name}"
            lines = [f"{'127.0.1.1' if other == name else at} {other}\n" for other, at in NODES.items()]
            table.write_text("127.0.0.1 localhost\n" + "".join(lines))
            for command in (
                ["ip", "addr", "add", f"{address}/24", "dev", "ether0"], ["ip", "link", "set", "ether0", "up"],
                ["ip", "link", "set", "lo", "up"], ["mount", "--bind", str(table), "/etc/hosts"], ["hostname", name],
            ):  # fmt: skip
                subprocess.run(inside(pid, *command), check=True)
        yield [first, second]


def test_ranks_reach_each_other_from_hosts_whose_own_names_mean_127_0_1_1(two_hosts, tmp_path):
    names = list(NODES)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("GLOO_", "SLURM_"))}
    env |= {"PYTHONPATH": f"{HERE}:{HERE.parents[1]}", "SLURM_CONF": "/nonexistent", "OMP_NUM_THREADS": "1"}
    running = []
    for index, pid in enumerate(two_hosts):
        words = [sys.executable, "-c", START, names[index], names[1 - index], str(index), str(tmp_path)]
        running.append(subprocess.Popen(inside(pid, *words), env=env, stderr=subprocess.PIPE, text=True))
    for process in running:
        _, errors = process.communicate(timeout=180)
        assert process.returncode == 0, errors[-3000:]
    assert [(tmp_path / f"sum-{rank}").read_text() for rank in (0, 1)] == ["11.0", "11.0"]
    assert socket.gethostname() not in names
