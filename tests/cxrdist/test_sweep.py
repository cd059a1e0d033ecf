"""The sweep with real Ray: complete, resumed, killed, refused. Every test ends all processes that it started."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cxrdist.cells import Ledger
from results import schema
from results.run import Run

ROOT = Path(__file__).resolve().parents[2]

SPEC = """
[axes]
label_fraction = [0.2, 1.0]
mode = ["linear", "full"]
seed = [0, 1]
[exclude]
mode = "full"
label_fraction = 0.2
[finetune]
shards = "{shards}"
arch = "small_cnn"
image_size = 28
epochs = 2
min_steps = 8
n_boot = 10
"""
CELLS = 6


@pytest.fixture
def spec(tmp_path, blobs) -> Path:
    """The small grid as a file."""
    path = tmp_path / "spec.toml"
    path.write_text(SPEC.format(shards=blobs))
    return path


def command(spec: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "jobs.cli", "sweep", "--config", str(spec), "--out", str(out), *more]


def sweep(spec: Path, out: Path, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    environ = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"} | environment
    return subprocess.run(command(spec, out, *more), cwd=ROOT, capture_output=True, text=True, timeout=400, env=environ)


def started_by(marker: str) -> list[int]:
    """Processes of this test's sweep: those that name its folder on their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(marker.encode() in word for word in words):
                found.append(int(entry.name))
    return found


def done_cells(out: Path) -> list[str]:
    return sorted(path.parent.name for path in out.glob("cells/*/done.json"))


def check_complete(out: Path, count: int = CELLS) -> None:
    """No cell lost, none doubled: every cell listed is done, and nothing else is there."""
    listed = sorted(cell["signature"] for cell in json.loads((out / "sweep.json").read_text())["cells"])
    assert done_cells(out) == listed and len(listed) == count
    assert sorted(path.name for path in out.glob("cells/[!.]*")) == listed
    described = set()
    for name in listed:
        run = Run(out / "cells" / name)
        config = run.read_config()
        described.add((config["label_fraction"], config["mode"], config["seed"]))
        keys = schema.read_predictions(run.predictions).to_pylist()
        assert len({(row["split"], row["key"], row["label"]) for row in keys}) == len(keys) == 80
    assert len(described) == count


@pytest.fixture(scope="module")
def finished(tmp_path_factory, blobs) -> Iterator[tuple[Path, Path, subprocess.CompletedProcess[str]]]:
    """A finished sweep: spec, folder and what it printed."""
    folder = tmp_path_factory.mktemp("sweep")
    path = folder / "spec.toml"
    path.write_text(SPEC.format(shards=blobs))
    yield path, folder / "out", sweep(path, folder / "out")


def test_a_sweep_runs_every_cell_and_shows_its_progress(finished):
    _, out, said = finished
    assert said.returncode == 0, said.stderr
    check_complete(out)
    assert f"all {CELLS} cells are done" in said.stdout
    assert f"[{CELLS}/{CELLS}]" in said.stderr and "val AUROC" in said.stderr
    noise = [word for word in ("WARNING", "raylet", "deprecated", "Traceback") if word in said.stderr + said.stdout]
    assert not noise, said.stderr
    assert not (out / ".tune").exists() and not started_by(str(out))


def test_a_complete_sweep_answers_without_torch_and_ray(finished):
    spec, out, _ = finished
    code = (
        "import sys; from jobs.cli import main;"
        f"c = main(['sweep', '--config', {str(spec)!r}, '--out', {str(out)!r}]);"
        "print(c, sorted({'torch', 'ray', 'pandas', 'sklearn'} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[-1] == "0 []"


def test_a_cell_of_a_sweep_has_the_numbers_of_the_single_command(finished, blobs, tmp_path):
    _, out, _ = finished
    for mode in ("linear", "full"):
        name = next(n for n in done_cells(out) if Run(out / "cells" / n).read_config()["mode"] == mode)
        config = Run(out / "cells" / name).read_config()
        words = [sys.executable, "-m", "jobs.cli", "finetune", "--out", str(tmp_path / mode), "--threads", "1"]
        for key in ("shards", "arch", "image_size", "epochs", "min_steps", "n_boot", "label_fraction", "mode", "seed"):
            words += [f"--{key}", str(config[key])]
        subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
        alone, shared = Run(tmp_path / mode), Run(out / "cells" / name)
        assert alone.read_info()["signature"] == name
        scores = [np.array(schema.read_predictions(run.predictions)["y_score"]) for run in (alone, shared)]
        assert np.array_equal(scores[0], scores[1])


def test_only_what_is_missing_runs_again(finished):
    spec, out, _ = finished
    names = done_cells(out)
    kept = {name: (out / "cells" / name / "done.json").read_text() for name in names[1:]}
    (out / "cells" / names[0] / "done.json").unlink()
    said = sweep(spec, out)
    assert said.returncode == 0 and f"[{CELLS}/{CELLS}]" in said.stderr and "1 to run" in said.stderr
    check_complete(out)
    assert {name: (out / "cells" / name / "done.json").read_text() for name in names[1:]} == kept


def test_a_cell_that_fails_is_named_with_its_log_and_the_rest_is_kept(tmp_path, blobs):
    spec = tmp_path / "spec.toml"
    text = SPEC.format(shards=blobs).replace("seed = [0, 1]", 'seed = [0]\nlabels = ["pneumonia", "hernia"]')
    spec.write_text(text.replace('"full"]', '"linear"]').replace('mode = ["linear", "linear"]', 'mode = ["linear"]'))
    spec.write_text(spec.read_text().replace('[exclude]\nmode = "full"\nlabel_fraction = 0.2\n', ""))
    said = sweep(spec, tmp_path / "out")
    assert said.returncode == 1
    assert len(done_cells(tmp_path / "out")) == 2, "the cells that could run are done"
    lines = [line for line in said.stderr.splitlines() if line.startswith("FAILED")]
    assert len(lines) == 2 and all("labels=hernia" in line and "1 attempts" in line for line in lines)
    assert "no label hernia in this shard set" in said.stderr
    assert "cxrdist: 2 of 4 cells failed, 2 are done and kept" in said.stderr


def test_ctrl_c_stops_within_seconds_and_the_same_command_goes_on(tmp_path, spec):
    out = tmp_path / "out"
    process = subprocess.Popen(command(spec, out), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: len(done_cells(out)) >= 1, process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "goes on from what is complete" in said and "Traceback" not in said
    wait_for(lambda: not started_by(str(out)), None)
    before = done_cells(out)
    assert 0 < len(before) < CELLS
    assert sweep(spec, out).returncode == 0
    check_complete(out)


def wait_for(condition, process: subprocess.Popen | None, seconds: float = 240.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited too long"
        assert process is None or process.poll() is None, "the sweep ended too early"
        time.sleep(0.1)


@pytest.mark.slow
def test_a_killed_sweep_loses_and_doubles_nothing(tmp_path, spec):
    """SIGKILL for the command, the Ray driver, or a Ray worker, at random moments, until all is done."""
    dice, out = random.Random(7), tmp_path / "out"
    for _ in range(6):
        process = subprocess.Popen(command(spec, out), cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        time.sleep(dice.uniform(3, 14))
        target = dice.choice(["command", "driver", "worker"])
        victims = {
            "command": [process.pid],
            "driver": [pid for pid in started_by(str(out)) if pid != process.pid],
            "worker": workers_of(process.pid),
        }[target]
        for pid in victims:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if target == "command":
            process.wait(30)
            wait_for(lambda: not started_by(str(out)), None, 60)
        else:
            try:
                process.wait(dice.uniform(5, 20))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGINT)
                process.wait(60)
    assert sweep(spec, out).returncode == 0
    check_complete(out)


def workers_of(pid: int) -> list[int]:
    """Ray's worker processes below a process: those that run trials call themselves ray::NAME."""
    import psutil

    found = []
    try:
        for child in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):  # it may have ended meanwhile
                if any("ray::" in word and "Trainable" in word for word in child.cmdline()):
                    found.append(child.pid)
    except psutil.NoSuchProcess:
        pass
    return found


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


@pytest.mark.slow
def test_asha_gives_up_trials_on_val_and_every_trial_is_complete(tmp_path, blobs):
    spec, out = tmp_path / "spec.toml", tmp_path / "out"
    spec.write_text(
        f"""
[finetune]
shards = "{blobs}"
arch = "small_cnn"
image_size = 28
epochs = 6
min_steps = 30
n_boot = 0
eval_steps = 3
[search]
method = "asha"
samples = 8
grace = 1
reduction = 2
[search.space]
"optim.lr" = {{low = 1e-5, high = 1e-2, log = true}}
"head.kind" = ["linear", "mlp"]
"""
    )
    said = sweep(spec, out)
    assert said.returncode == 0, said.stderr
    ends = [Run(out / "cells" / name).read_done()["ended"] for name in done_cells(out)]
    assert len(ends) == 8 and "scheduler" in ends
    import csv

    with open(out / "trials.csv") as file:
        rows = list(csv.DictReader(file))
    chosen = [row for row in rows if row["chosen"] == "True"]
    assert len(rows) == 8 and len(chosen) == 1
    assert float(chosen[0]["val_auroc"]) == max(float(row["val_auroc"]) for row in rows)
    assert "test" not in "".join(rows[0])


def test_one_sweep_at_a_time_in_a_folder(tmp_path, spec):
    import fcntl

    out = tmp_path / "out"
    out.mkdir()
    with open(out / "sweep.lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        said = sweep(spec, out)
    assert said.returncode == 2 and "another sweep is running" in said.stderr


def test_a_folder_that_holds_something_else_stays_untouched(tmp_path, spec):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("mine")
    said = sweep(spec, out)
    assert said.returncode == 2 and "thesis.tex" in said.stderr and "not a sweep" in said.stderr
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]


def test_a_cluster_that_does_not_answer_is_an_error_not_a_hang(tmp_path, spec):
    said = sweep(spec, tmp_path / "out", "--start_seconds", "8", RAY_ADDRESS="127.0.0.1:1")
    assert said.returncode == 1
    assert "Ray did not start within 8 s" in said.stderr or "Ray ended" in said.stderr
    assert "127.0.0.1:1" in said.stderr and "Traceback" not in said.stderr
    wait_for(lambda: not started_by(str(tmp_path / "out")), None, 30)


def test_a_cell_folder_of_another_trial_is_refused_and_kept(tmp_path, spec, finished):
    """A run of another signature under a cell's name: copied there by hand, or a damaged disk."""
    from cxrdist.grid import expand
    from jobs.cli import parse

    out = tmp_path / "out"
    cells = expand(parse("sweep", command(spec, out)[4:]))
    Ledger(out).claim()
    (out / "sweep.json").write_text("{}")
    strange = cells[0].run
    strange.path.mkdir()
    strange.info.write_text(json.dumps({"signature": "0123456789ab", "job": "finetune"}))
    said = sweep(spec, out)
    assert said.returncode == 1 and "holds another run (signature 0123456789ab" in said.stderr
    assert json.loads(strange.info.read_text())["signature"] == "0123456789ab"
    assert len(done_cells(out)) == CELLS - 1
