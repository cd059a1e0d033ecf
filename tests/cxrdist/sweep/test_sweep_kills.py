"""Sweeps that are stopped and killed: the same command goes on, and no cell is lost or doubled."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from results.run import Run
from tests.cxrdist.sweeping import (
    ALONE,
    CELLS,
    ROOT,
    SPEC,
    check_complete,
    cluster,
    command,
    done_cells,
    head_of,
    kill,
    started_by,
    sweep,
    wait_for,
    workers_of,
)


@pytest.fixture
def spec(tmp_path, blobs) -> Path:
    """The small grid as a file."""
    path = tmp_path / "spec.toml"
    path.write_text(SPEC.format(shards=blobs))
    return path


def test_ctrl_c_stops_within_seconds_and_the_same_command_goes_on_and_clears_up_after_a_killed_one(tmp_path, spec):
    out = tmp_path / "out"
    process = subprocess.Popen(command(spec, out, *ALONE), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: len(done_cells(out)) >= 1, process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "goes on from what is complete" in said and "Traceback" not in said
    wait_for(lambda: not started_by(str(out)), None)
    assert 0 < len(done_cells(out)) < CELLS
    process = subprocess.Popen(command(spec, out, *ALONE), cwd=ROOT, stderr=subprocess.DEVNULL)
    note = out / "logs" / "ray-folder"
    wait_for(lambda: note.is_file() and note.read_text() != "", process)
    folder = Path(note.read_text())
    assert folder.is_dir()
    kill([process.pid, *(pid for pid in started_by(str(out)) if pid != process.pid)])
    process.wait(30)
    wait_for(lambda: not started_by(str(out)), None, 60)
    assert folder.is_dir()
    assert sweep(spec, out, *ALONE).returncode == 0
    assert not folder.exists() and not note.exists()
    check_complete(out)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_killed_sweep_loses_and_doubles_nothing(tmp_path, blobs):
    """SIGKILL for the command, the Ray driver, a worker, and both parts of Ray's head, spread over the whole run.

    Each falls after a drawn number of cells, from none to all but one; a sweep that ended of it is started again.
    """
    spec, out = tmp_path / "spec.toml", tmp_path / "out"
    text = SPEC.format(shards=blobs).replace("seed = [0, 1]", f"seed = {list(range(12))}").replace("= 8", "= 60")
    spec.write_text(text.replace('["linear", "full"]', '["full"]').replace("[0.2, 1.0]", "[1.0]").replace(
        '[exclude]\nmode = "full"\nlabel_fraction = 0.2\n', ""))  # fmt: skip
    total, dice = 12, random.Random()  # cells that train layers all take their time, so that kills can fall among them
    seed = dice.randrange(1 << 32)
    print(f"drawn with seed {seed}")
    dice.seed(seed)
    targets = ["command", "driver", "worker", "gcs_server", "raylet"]
    dice.shuffle(targets)
    process, landed, kept = None, [], {}
    for mark, target in zip(sorted(dice.sample(range(total), len(targets))), targets, strict=True):
        if process is None or process.poll() is not None:
            process = subprocess.Popen(command(spec, out), cwd=ROOT, stderr=subprocess.DEVNULL, text=True)
        started = process
        wait_for(lambda mark=mark, p=started: p.poll() is not None or len(done_cells(out)) >= mark, None)
        wait_for(lambda p=started, t=target: p.poll() is not None or bool(victims(p, out, t)), None)
        time.sleep(dice.uniform(0, 1))
        if process.poll() is not None:
            continue
        kept |= {name: (out / "cells" / name / "done.json").read_bytes() for name in done_cells(out)}
        kill(victims(process, out, target))
        landed.append((target, len(kept)))
        if target == "command":
            process.wait(30)
            wait_for(lambda: not started_by(str(out)), None, 60)
    print(f"kills and the cells that were done: {landed}")
    if process is not None:
        process.wait(300)
    assert sweep(spec, out).returncode == 0
    check_complete(out, total)
    assert {name: (out / "cells" / name / "done.json").read_bytes() for name in kept} == kept
    assert len(landed) >= 3


def victims(process: subprocess.Popen, out: Path, target: str) -> list[int]:
    """The processes that a kill of `target` means."""
    if target == "command":
        return [process.pid]
    if target == "driver":
        return [pid for pid in started_by(str(out)) if pid != process.pid]
    return workers_of(process.pid)[:1] if target == "worker" else head_of(process.pid, target)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["gcs_server", "raylet"])
def test_a_killed_head_of_ray_is_started_again_and_nothing_is_lost(tmp_path, blobs, part):
    """With cells left that no worker has taken yet, so that the head is missed."""
    spec, out = tmp_path / "spec.toml", tmp_path / "out"
    spec.write_text(SPEC.format(shards=blobs).replace("[0, 1]", "[0, 1, 2, 3]").replace("= 8", "= 120"))
    process = subprocess.Popen(command(spec, out), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: len(done_cells(out)) >= 1, process)
    kept = {name: (out / "cells" / name / "done.json").read_bytes() for name in done_cells(out)}
    kill(head_of(process.pid, part))
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0 and "Traceback" not in said, said
    assert "starting it again for the cells that are left" in said, said
    check_complete(out, 2 * CELLS)
    assert {name: (out / "cells" / name / "done.json").read_bytes() for name in kept} == kept
    wait_for(lambda: not started_by(str(out)), None, 30)
    again = sweep(spec, out)
    assert again.returncode == 0 and f"all {2 * CELLS} cells are done" in again.stdout


@pytest.mark.slow
def test_a_head_that_always_dies_ends_the_sweep_with_one_clear_line(tmp_path, spec):
    """Ray's own start is spoilt: every driver dies, the sweep gives up after a few, the folder stays usable."""
    out = tmp_path / "out"
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, threading, os, time\n"
        "def end():\n"
        "    time.sleep(6)\n"
        "    os._exit(9)\n"
        "if 'cxrdist.sweep' in ' '.join(sys.orig_argv): threading.Thread(target=end, daemon=True).start()\n"
    )
    said = sweep(spec, out, PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    assert said.returncode == 1 and "Traceback" not in said.stderr
    (line,) = [line for line in said.stderr.splitlines() if line.startswith("cxrdist:")]
    assert "Ray ended 3 times without finishing a cell" in line and "ray.log" in line
    assert sweep(spec, out).returncode == 0
    check_complete(out)


@pytest.mark.slow
def test_a_lost_node_costs_an_attempt_and_the_others_go_on(tmp_path, spec):
    out = tmp_path / "out"
    with cluster(tmp_path, {"num_cpus": 1}, {"num_cpus": 1}) as (address, lose):
        environment = os.environ | {"RAY_ADDRESS": address}
        process = subprocess.Popen(
            command(spec, out, "--trials", "2"), cwd=ROOT, stderr=subprocess.PIPE, text=True, env=environment
        )
        wait_for(lambda: len(done_cells(out)) >= 1, process)
        lose(1)
        _, said = process.communicate(timeout=300)
    assert process.returncode == 0 and "on 2 nodes" in said and "Traceback" not in said, said
    check_complete(out)


def full_cells(spec: Path, shards: Path, count: int) -> Path:
    """The small grid with `count` cells alone, all of mode full, as a file."""
    text = SPEC.format(shards=shards).replace("seed = [0, 1]", f"seed = {list(range(count))}")
    text = text.replace('["linear", "full"]', '["full"]').replace("[0.2, 1.0]", "[1.0]")
    spec.write_text(text.replace('[exclude]\nmode = "full"\nlabel_fraction = 0.2\n', ""))
    return spec


def most_at_once(spans: list[tuple[str, str, str]], on_each: int) -> int:
    """Most trials that ran at the same moment; no card had more than `on_each` of them."""
    most = 0
    for begin, _, _ in spans:
        now = [gpu for first, last, gpu in spans if first <= begin < last]
        assert all(now.count(gpu) <= on_each for gpu in now), now
        most = max(most, len(now))
    return most


@pytest.mark.slow
def test_four_trials_share_two_gpus_two_on_each(tmp_path, blobs):
    """GPUs are declared to Ray, which is all that scheduling needs: it hands out their numbers as on a real node."""
    spec, out = full_cells(tmp_path / "spec.toml", blobs, 10), tmp_path / "out"
    with cluster(tmp_path, {"num_cpus": 8, "num_gpus": 2}) as (address, _):
        said = sweep(spec, out, "--gpus_per_trial", "0.5", RAY_ADDRESS=address)
    assert said.returncode == 0, said.stderr
    assert "4 trials at a time, 0.5 GPU each" in said.stderr
    spans = [span_of(path) for path in (out / "logs").glob("*[0-9a-f].log")]
    assert len(spans) == 10 and {gpu for *_, gpu in spans} == {"0", "1"}, "each trial sees exactly one device"
    assert most_at_once(spans, on_each=2) == 4


@pytest.mark.gpu
def test_two_trials_compute_on_one_card_at_the_same_time(tmp_path, blobs):
    pytest.importorskip("ray", reason="ray: not installed here")
    spec, out = full_cells(tmp_path / "spec.toml", blobs, 6), tmp_path / "out"
    said = sweep(spec, out, "--gpus_per_trial", "0.5", "--device", "cuda", "--trials", "2", CUDA_VISIBLE_DEVICES="0")
    assert said.returncode == 0, said.stderr
    assert "2 trials at a time, 0.5 GPU each" in said.stderr
    spans = [span_of(path) for path in (out / "logs").glob("*[0-9a-f].log")]
    assert len(spans) == 6 and {gpu for *_, gpu in spans} == {"0"} and most_at_once(spans, on_each=2) == 2
    for name in done_cells(out):
        done = Run(out / "cells" / name).read_done()
        assert done["gpu_seconds"] > 0 and done["test_auroc"] > 0.5


def span_of(log: Path) -> tuple[str, str, str]:
    """When a trial began and ended, and which GPU it saw."""
    lines = [line.split() for line in log.read_text().splitlines() if line.startswith("--- ")]
    (begin, end) = lines
    assert end[-1] == "end" and begin[-2] == "GPU"
    return begin[1], end[1], begin[-1]


@pytest.mark.slow
def test_a_killed_worker_costs_one_attempt_and_the_cell_is_tried_again(tmp_path, spec):
    out = tmp_path / "out"
    process = subprocess.Popen(command(spec, out), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: bool(workers_of(process.pid)) and any(out.glob("logs/*[0-9a-f].log")), process)
    for pid in workers_of(process.pid)[:1]:
        os.kill(pid, signal.SIGKILL)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert "the worker process died" in said and "it will be tried again" in said
    check_complete(out)
