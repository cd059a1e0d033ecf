"""The cluster of the tests, and jobs of the counting worker on it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from jobs import cli
from slurm import checks, client, profiles, submit

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # pytest's importlib mode leaves it out, and the harness is also a command

import cluster as harness  # noqa: E402
from daemons import run  # noqa: E402


@pytest.fixture(scope="session")
def running_cluster() -> Iterator[harness.Cluster]:
    missing = harness.missing_for_cluster()
    if missing:
        pytest.skip(f"slurm: {missing}")
    before = os.environ.get("SLURM_CONF")
    try:
        with harness.session() as running:
            yield running
    finally:
        os.environ.pop("SLURM_CONF", None)
        if before is not None:
            os.environ["SLURM_CONF"] = before


@pytest.fixture
def cluster(running_cluster: harness.Cluster) -> Iterator[harness.Cluster]:
    """The cluster with all nodes up and no job in its queue."""
    running_cluster.fix()
    yield running_cluster
    running_cluster.cancel_all()
    running_cluster.fix()


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated X-rays as a shard set; nothing changes it."""
    out = tmp_path_factory.mktemp("phantom") / "shards"
    assert cli.main(f"shard phantom --out {out} --images 60 --size 48 --workers 1".split()) == 0
    return out


@dataclasses.dataclass
class Counting:
    """A job of tests/slurm/counting_worker.py and its folder."""

    folder: Path
    request: submit.Request
    job_id: str = ""

    def queue(self) -> str:
        checks.check(self.request)
        self.job_id = submit.submit(self.request)
        return self.job_id

    def lines(self) -> list[dict]:
        path = self.folder / "log.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def wait_for_step(self, step: int, seconds: float = 120) -> None:
        wait_until(lambda: self.lines() and self.lines()[-1]["step"] >= step, seconds, f"step {step}: {self.log()}")

    def wait_for_end(self, seconds: float = 180) -> str:
        wait_until(lambda: not client.job(self.job_id).active, seconds, f"the end of job {self.job_id}", 0.5)
        return client.job(self.job_id).state

    def log(self) -> str:
        return "".join(path.read_text() for path in sorted((self.folder / "submission").glob("*_log.out")))

    def samples(self) -> list[int]:
        return [sample for line in self.lines() for sample in line["samples"]]


PORT_TAKEN = (
    f'{sys.executable} -P -c "import socket, time; from slurm import meeting; '
    "held = socket.create_server(('', meeting.job_port())); time.sleep(120)\" &"
)
"""Line of a profile's setup: somebody listens at the port that the job would take on its first node."""


@contextlib.contextmanager
def hosts_of_nodes(cluster: harness.Cluster, folder: Path, text: Callable[[str], str]) -> Iterator[None]:
    """Give each node an /etc/hosts of its own; in loopback mode, where the nodes share one, nothing happens."""
    nodes = harness.NODES if cluster.mode == "netns" else ()
    for node in nodes:
        (folder / f"hosts-{node}").write_text(text(node))
        run(*cluster.in_node(node, "mount", "--bind", str(folder / f"hosts-{node}"), "/etc/hosts"))
    try:
        yield
    finally:
        for node in nodes:
            run(*cluster.in_node(node, "umount", "/etc/hosts"))


def debian(cluster: harness.Cluster) -> Callable[[str], str]:
    """Return a maker of /etc/hosts as Debian's installer leaves it: a host's own name is 127.0.1.1."""

    def text(node: str) -> str:
        addresses = {other: "127.0.1.1" if other == node else cluster.address(other) for other in harness.NODES}
        return "127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in addresses.items())

    return text


def wait_until(true: Callable[[], object], seconds: float, what: str, pause: float = 0.1) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not in {seconds} s: {what}"
        time.sleep(pause)


def command_lines(folder: Path) -> dict[int, bytes]:
    """Process -> command line, of all processes on any node whose command line names a folder."""
    found = {}
    for pid in psutil.pids():
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as words:
                line = words.read()
        except OSError:
            continue
        if str(folder).encode() in line:
            found[pid] = line
    return found


@pytest.fixture
def counting(tmp_path: Path) -> Callable[..., Counting]:
    """Return a maker of counting jobs: one rank on each node; a rank alone has no torchrun around it.

    Each torchrun imports torch, which takes longer than most of these jobs. What needs one asks for max_restarts.
    """

    def make(
        *options: str,
        nodes: int = 2,
        partition: str = "main",
        min_nodes: int | None = None,
        name: str = "run",
        **profile,
    ) -> Counting:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        values = {"env": {"PYTHONPATH": str(HERE)}, "time": "00:05:00", "ranks_per_node": 1}
        values |= {"max_restarts": 0 if nodes == 1 else 3, **profile}
        chosen = dataclasses.replace(profiles.load("local"), **values)
        task = submit.task_for(
            chosen,
            kind="ranks",
            words=("counting_worker", str(folder), *options),
            folder=str(folder / "submission"),
            done=str(folder / "final.json"),
        )
        request = submit.Request(
            name="count", task=task, profile=chosen, nodes=nodes, min_nodes=min_nodes, partition=partition
        )
        return Counting(folder, request)

    return make


@pytest.fixture
def secrets(tmp_path, monkeypatch):
    """Secrets in the environment at submission; at the end no file below tmp_path may hold them."""
    for name in ("WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "NCCL_PASSWORD"):
        monkeypatch.setenv(name, f"hush-{name}")
    before = os.umask(0o022)
    yield
    os.umask(before)
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"hush-" not in path.read_bytes(), path
