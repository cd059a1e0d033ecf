"""A sweep as a job array on the real cluster: complete after kills, taken over half-way, nothing trained twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import wait_until

from jobs import cli
from results.run import Run
from slurm import client, jobs_file

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]

SPEC = """
[axes]
mode = ["linear", "full"]
seed = [0, 1]
[finetune]
shards = "{shards}"
arch = "small_cnn"
image_size = 28
epochs = 2
min_steps = 40
log_every = 1
n_boot = 0
device = "cpu"
"""


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("array")
    assert cli.main(f"shard phantom --out {folder}/shards --images 60 --size 48".split()) == 0
    path = folder / "sweep.toml"
    path.write_text(SPEC.format(shards=folder / "shards"))
    return path


def parts_at_work(out: Path) -> list[int]:
    """Processes that train cells of a sweep's array."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "cxrdist.sweep.array_part" in words and str(out) in words:
            found.append(process.pid)
    return found


def test_an_array_with_a_killed_part_and_a_killed_driver_ends_with_every_cell_done_once(cluster, spec, tmp_path):
    out = tmp_path / "sweep"
    words = [sys.executable, "-m", "jobs.cli", "sweep", "--config", str(spec), "--out", str(out)]
    words += ["--executor", "slurm-array", "--array.profile", "local", "--array.throttle", "2"]
    with open(tmp_path / "first.log", "w") as log:
        driver = subprocess.Popen(words, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_until(lambda: parts_at_work(out) and list(out.glob("cells/*/run.json")), 300, "a part at work")
        os.kill(parts_at_work(out)[0], signal.SIGKILL)
        time.sleep(1.0)
    finally:
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
    job = jobs_file.name_of(jobs_file.jobs(out / "array")[-1])
    text = (out / "array" / "job.sbatch").read_text()
    parts = json.loads((out / "array" / "parts.json").read_text())
    assert f"--array=0-{len(parts) - 1}%2" in text
    assert sorted(map(len, parts)) in ([1, 1, 2], [1, 1, 1, 1]), "linear cells on the same features are together"
    if client.job(job).active:
        refused = subprocess.run([*words[:8], "--executor", "ray"], cwd=ROOT, capture_output=True, text=True)
        assert refused.returncode == 2 and f"job {job}" in refused.stderr
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stdout + done.stderr
    cells = json.loads((out / "sweep.json").read_text())["cells"]
    assert len(cells) == 4 and all(Run(out / "cells" / cell["signature"]).is_done for cell in cells)
    assert (out / "done.json").is_file() and not client.job(job).active
    again = subprocess.run([*words[:8]], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0 and "all 4 cells are done" in again.stdout


def longer(spec: Path, steps: int) -> str:
    """The sweep with four cells of full fine-tuning that take longer."""
    text = spec.read_text().replace("min_steps = 40", f"min_steps = {steps}")
    return text.replace('["linear", "full"]', '["full"]').replace("seed = [0, 1]", "seed = [0, 1, 2, 3]")


def begun(out: Path) -> list[Run]:
    """Cells that have logged a step and are not done."""
    runs = [Run(path.parent) for path in out.glob("cells/*/metrics.jsonl")]
    return [run for run in runs if not run.is_done]


def more_done(out: Path, than: int) -> bool:
    return len([*out.glob("cells/*/done.json")]) > than


def start(words: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("w") as file:
        return subprocess.Popen(words, cwd=ROOT, stdout=file, stderr=file, start_new_session=True)


def check_all_done(out: Path) -> None:
    cells = json.loads((out / "sweep.json").read_text())["cells"]
    assert len(cells) == 4 and (out / "done.json").is_file()
    for cell in cells:
        run = Run(out / "cells" / cell["signature"])
        steps = [row["step"] for row in run.read_log() if "loss" in row]
        assert run.is_done and len(steps) == len(set(steps)), "no step was logged twice"


def test_a_part_that_is_preempted_goes_back_alone_and_goes_on_with_its_cell(cluster, spec, tmp_path):
    out, long = tmp_path / "sweep", tmp_path / "long.toml"
    long.write_text(longer(spec, 600))
    words = [sys.executable, "-m", "jobs.cli", "sweep", "--config", str(long), "--out", str(out)]
    profile = tmp_path / "mine.toml"
    profile.write_text('partition = "preempt"\ntime = "10"\n')
    driver = start([*words, "--executor", "slurm-array", "--array.profile", str(profile)], tmp_path / "log")
    try:
        wait_until(lambda: begun(out), 300, "a cell at work")
        job = jobs_file.name_of(jobs_file.jobs(out / "array")[-1])
        subprocess.run("sbatch -p high -N2 --exclusive -o /dev/null --wrap".split() + ["sleep 5"], check=True)
        wait_until(lambda: not parts_at_work(out), 120, "the preemption of every part")
        before = {run.path.name: len(run.read_log()) for run in begun(out)}
        assert before, "a cell was in the middle"
        assert driver.wait(timeout=600) == 0, (tmp_path / "log").read_text()
    finally:
        if driver.poll() is None:
            os.killpg(driver.pid, signal.SIGKILL)
            driver.wait()
    check_all_done(out)
    assert any(part.restarts >= 1 for part in client.parts(job)), "requeued, not queued anew"
    assert len(jobs_file.jobs(out / "array")) == 1
    logs = "".join(path.read_text() for path in (out / "array").glob("*.out"))
    assert "goes back to the queue" in logs


@pytest.mark.slow
def test_a_sweep_changes_from_ray_to_an_array_and_back_with_cells_half_way(cluster, spec, tmp_path):
    out, long = tmp_path / "sweep", tmp_path / "long.toml"
    long.write_text(longer(spec, 400))
    words = [sys.executable, "-m", "jobs.cli", "sweep", "--config", str(long), "--out", str(out)]
    array = [*words, "--executor", "slurm-array", "--array.profile", "local"]
    kept: dict[str, str] = {}
    for number, line in enumerate((words, array, words)):
        driver = start(line, tmp_path / f"log{number}")
        if number < 2:
            done = len(kept)
            wait_until(lambda done=done: more_done(out, done) and begun(out), 400, "cells at work")
            driver.send_signal(signal.SIGINT)
            driver.wait(timeout=120)
            if line is array:
                job = jobs_file.name_of(jobs_file.jobs(out / "array")[-1])
                subprocess.run(["scancel", job], check=True)
                wait_until(lambda job=job: not client.job(job).active, 60, "the end of the array")
            kept |= {path.parent.name: path.read_text() for path in out.glob("cells/*/done.json")}
        else:
            assert driver.wait(timeout=400) == 0, (tmp_path / "log2").read_text()
    check_all_done(out)
    assert {name: (out / "cells" / name / "done.json").read_text() for name in kept} == kept, (
        "nothing was trained twice"
    )
