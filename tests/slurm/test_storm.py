"""A study in a storm: requeues, lost nodes, killed controllers, full disks; it ends with a quiet study's numbers.

The same chain (a shard set, a pretraining on two nodes, a sweep on Ray, one table) runs twice: undisturbed, and on a
disk of its own while `Storm` strikes. All that the storm's user does is to submit the chain again when a stage failed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import cluster as harness
import pytest
from conftest import wait_until
from daemons import end, spawn

from jobs import cli
from results.run import Run
from slurm import client, jobs_file
from slurm.errors import FailedError

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(5400)]

CHAIN = """
[[stage]]
name = "set"
run = "shard phantom --out set --images 60 --size 48"

[[stage]]
name = "simclr"
needs = ["set"]
nodes = 2
run = "pretrain --shards set --out simclr --arch test_resnet --image_size 32 --global_batch 16 --steps STEPS \
--device cpu --precision float32 --watch.every_epochs 1000 --checkpoint.every_steps 100"

[[stage]]
name = "sweep"
needs = ["simclr"]
nodes = 2
run = "sweep --config sweep.toml --out grid"

[[stage]]
name = "collect"
needs = ["sweep"]
run = "collect grid --out study.parquet"
"""
SWEEP = """
[axes]
init = ["scratch", "simclr"]
shards = ["set"]
seed = [0, 1]
label_fraction = [1.0]

[finetune]
mode = "full"
arch = "test_resnet"
image_size = 32
epochs = 2
min_steps = 60
global_batch = 16
device = "cpu"
"""
PROFILE = 'ranks_per_node = 1\ncpus_per_rank = 1\ntime = "02:00:00"\nmax_requeues = 200\n'
ON_PRETRAINING = [
    "requeue", "signal", "requeue", "disk", "signal", "requeue", "controller", "signal", "requeue", "node", "signal",
    "requeue", "signal", "disk", "requeue", "signal", "requeue", "signal", "requeue", "signal", "requeue",
]  # fmt: skip
ON_THE_SWEEP = ["requeue", "disk", "controller", "signal", "node", "requeue"]
SHORT = (["requeue", "disk", "signal", "controller", "node", "requeue"], ["signal"], 1000)
"""Blows on the pretraining and on the sweep, and its steps: a few, a quarter of an hour on two busy cores."""
LONG = (ON_PRETRAINING, ON_THE_SWEEP, 2000)
"""Twenty requeues: forty minutes on two busy cores."""


@dataclasses.dataclass
class Storm:
    """What strikes a stage of the study in a folder."""

    cluster: harness.Cluster
    folder: Path
    say: Callable[[str], None]
    struck: Counter[str] = dataclasses.field(default_factory=Counter)
    resubmitted: int = 0

    def strike(self, stage: str, out: Path, blows: list[str]) -> list[str]:
        """Deal the blows one after the other, each while the stage runs and has come further since the last one.

        Returns:
            those for which there was no time, because the stage was done.
        """
        for number, blow in enumerate(blows):
            before = self._progress(out)
            if not self._runs_and_comes_further(out, before):
                return blows[number:]
            getattr(self, f"_{blow}")(jobs_file.job_ids(out / "submission")[-1])
            self.struck[blow] += 1
            self.say(f"{stage}: {blow}")
        return []

    def until_done(self, out: Path, done: Path, seconds: float = 1200) -> None:
        """Wait for the end of a stage, and submit the chain again whenever it has failed."""
        wait_until(lambda: done.is_file() or self._nurse(out), seconds, f"{done}", 1.0)

    def _runs_and_comes_further(self, out: Path, before: int) -> bool:
        def further() -> bool:
            self._nurse(out)
            return (out / "done.json").is_file() or (self._running(out) and self._progress(out) > before)

        wait_until(further, 600, f"progress of {out}", 0.3)
        return not (out / "done.json").is_file()

    def _nurse(self, out: Path) -> bool:
        """Submit the chain again when the stage's job ended without its work done."""
        with contextlib.suppress(FailedError):  # the controller is down
            job = client.job(jobs_file.job_ids(out / "submission")[-1])
            if not job.active and not (out / "done.json").is_file():
                assert submit() == 0
                self.resubmitted += 1
        return False

    def _running(self, out: Path) -> bool:
        with contextlib.suppress(FailedError):
            return client.job(jobs_file.job_ids(out / "submission")[-1]).state == "RUNNING"
        return False

    def _progress(self, out: Path) -> int:
        """Bytes of the logs of the stage's runs."""
        return sum(path.stat().st_size for path in out.glob("**/metrics.jsonl"))

    def _requeue(self, job: str) -> None:
        subprocess.run(["scontrol", "requeue", job], check=False)

    def _signal(self, job: str) -> None:
        subprocess.run(["scancel", "--signal=USR2", job], check=False)

    def _controller(self, job: str) -> None:
        end("slurmctld", signal.SIGKILL)
        time.sleep(8)
        spawn("slurmctld", "slurmctld", "-D", "-f", str(self.cluster.conf))

    def _node(self, job: str) -> None:
        node = harness.NODES[self.struck["node"] % 2]
        self.cluster.crash_node(node)
        wait_until(lambda: client.job(job).state != "RUNNING" or not client.job(job).active, 150, "the loss of a node")
        self.cluster.fix(120)

    def _disk(self, job: str) -> None:
        ballast = self.folder / "ballast"
        with contextlib.suppress(OSError), open(ballast, "wb") as file:
            for size in (1 << 20, 1 << 12, 1):
                with contextlib.suppress(OSError):
                    while file.write(bytes(size)):
                        file.flush()
        time.sleep(12)
        ballast.unlink()


def submit() -> int:
    return cli.main("submit chain chain.toml".split())


@pytest.fixture
def own_disk(cluster: harness.Cluster, tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 MiB that the nodes see, too."""
    folder = tmp_path / "disk"
    folder.mkdir()
    for node in harness.NODES:
        cluster.crash_node(node)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "none", folder], check=True)
    try:
        cluster.fix(120)  # the nodes take over what is mounted
        yield folder
    finally:
        cluster.cancel_all()
        for node in harness.NODES:
            cluster.crash_node(node)
        subprocess.run(["umount", "-l", folder], check=True)


def prepared(folder: Path, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    Path("local.toml").write_text(PROFILE)
    Path("chain.toml").write_text('profile = "local.toml"\n' + CHAIN.replace("STEPS", str(steps)))
    Path("sweep.toml").write_text(SWEEP)
    assert submit() == 0


def table(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert cli.main(f"table label-efficiency {folder}/study.parquet --format csv".split()) == 0
    return capsys.readouterr().out


def cells(folder: Path) -> dict[str, bytes]:
    return {
        path.parent.parent.name: path.read_bytes() for path in folder.glob("grid/cells/*/results/predictions.parquet")
    }


@pytest.mark.parametrize(("early", "late", "steps"), [SHORT, LONG], ids=["short", "twenty-requeues"])
def test_a_study_in_a_storm_ends_with_the_table_of_a_quiet_one(
    cluster, own_disk, tmp_path, capfd, monkeypatch, early, late, steps
):
    if cluster.mode != "netns":
        pytest.skip("slurm: needs namespaces: nodes that lose their power")
    quiet = tmp_path / "quiet"
    began = time.monotonic()
    prepared(quiet, steps, monkeypatch)
    wait_until(lambda: (quiet / "study.parquet").is_file(), 1800, "the quiet study", 1.0)
    calm_s = time.monotonic() - began

    began = time.monotonic()
    prepared(own_disk, steps, monkeypatch)

    def say(text: str) -> None:
        with capfd.disabled():
            print(f"{time.monotonic() - began:6.0f} s  {text}", flush=True)

    storm = Storm(cluster, own_disk, say)
    simclr, grid = own_disk / "simclr", own_disk / "grid"
    wait_until(lambda: (simclr / "config.toml").is_file(), 300, "the pretraining")
    left = storm.strike("simclr", simclr, early)
    storm.until_done(simclr, simclr / "done.json")
    left = storm.strike("sweep", grid, late + left)
    storm.until_done(grid, grid / "done.json")
    wait_until(lambda: (own_disk / "study.parquet").is_file() or storm._nurse(grid), 600, "the storm's study", 1.0)
    storm_s = time.monotonic() - began

    requeues = storm.struck["requeue"] + storm.struck["signal"]
    found = [
        json.loads(line)["step"] for line in Run(simclr).metrics_log.read_text().splitlines() if "images_per_s" in line
    ]
    stretches = len((simclr / "submission" / "stretches.jsonl").read_text().splitlines())
    logged = [10 * number for number in range(1, steps // 10 + 1)]
    say(json.dumps({
        "struck": storm.struck, "too late": left, "requeues": requeues, "resubmitted": storm.resubmitted,
        "stretches": stretches,
        "log lines lost to full disks": len(set(logged) - set(found)), "repeated": len(found) - len(set(found)),
        "quiet_s": round(calm_s), "storm_s": round(storm_s),
    }))  # fmt: skip
    assert not left and storm.struck == Counter(early + late), "every blow fell"
    order = [Run(folder / "simclr").read_done()["order_sha256"] for folder in (quiet, own_disk)]
    assert order[0] == order[1], "every step once, in order"
    weights = [(folder / "simclr" / "encoder.safetensors").read_bytes() for folder in (quiet, own_disk)]
    assert weights[0] == weights[1]
    assert cells(quiet).keys() == cells(own_disk).keys() and len(cells(quiet)) == 4
    say(table(quiet, capfd))
    assert table(own_disk, capfd) == table(quiet, capfd)
