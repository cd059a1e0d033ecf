"""The sweep with real Ray: complete, resumed, killed, refused. Every test ends all processes that it started."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs import cli
from results import schema
from results.run import Run
from tests.cxrdist.sweeping import (
    ALONE,
    CELLS,
    ROOT,
    SPEC,
    check_complete,
    done_cells,
    started_by,
    sweep,
    wait_for,
)


@pytest.fixture
def spec(tmp_path, blobs) -> Path:
    """The small grid as a file."""
    path = tmp_path / "spec.toml"
    path.write_text(SPEC.format(shards=blobs))
    return path


TRACKERS = [name for name in ("mlflow", "wandb") if importlib.util.find_spec(name)]
TRACKED = ("--track", ",".join(TRACKERS)) if TRACKERS else ()


def stores(folder: Path) -> dict[str, str]:
    """Settings by which trackers keep everything in a folder."""
    return {
        "MLFLOW_TRACKING_URI": (folder / "mlruns").as_uri(),
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "WANDB_MODE": "offline",
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory, blobs) -> Iterator[tuple[Path, Path, subprocess.CompletedProcess[str]]]:
    """A finished sweep, mirrored to the trackers that are installed: spec, folder and what it printed."""
    folder = tmp_path_factory.mktemp("sweep")
    path = folder / "spec.toml"
    path.write_text(SPEC.format(shards=blobs))
    yield path, folder / "out", sweep(path, folder / "out", *TRACKED, **stores(folder))


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
        words = ["finetune", "--out", str(tmp_path / mode), "--threads", "1"]
        for key in ("shards", "arch", "image_size", "epochs", "min_steps", "n_boot", "label_fraction", "mode", "seed"):
            words += [f"--{key}", str(config[key])]
        assert cli.main(words) == 0
        alone, shared = Run(tmp_path / mode), Run(out / "cells" / name)
        assert alone.read_info()["signature"] == name
        scores = [np.array(schema.read_predictions(run.predictions)["y_score"]) for run in (alone, shared)]
        assert np.array_equal(scores[0], scores[1])


def tracked(out: Path) -> dict[str, dict[str, Any]]:
    """What is noted of the trackers of every cell."""
    return {name: json.loads((out / "cells" / name / "tracking.json").read_text()) for name in done_cells(out)}


@pytest.mark.filterwarnings("ignore")
def test_every_cell_of_a_sweep_is_a_run_of_its_own_in_the_trackers(finished, monkeypatch):
    mlflow: Any = pytest.importorskip("mlflow", reason="mlflow: not installed here")
    _, out, _ = finished
    for name, value in stores(out.parent).items():
        monkeypatch.setenv(name, value)
    assert cli.main(["track", str(out), "--to", ",".join(TRACKERS)]) == 0  # what a busy machine left unsent
    noted = tracked(out)
    for name in TRACKERS:
        assert len({held[name]["id"] for held in noted.values()}) == CELLS
        assert all(held[name]["done"] for held in noted.values())
    client = mlflow.tracking.MlflowClient()
    runs = client.search_runs([client.get_experiment_by_name("cxrdist").experiment_id])
    assert {run.info.run_id for run in runs} == {held["mlflow"]["id"] for held in noted.values()}
    for run in runs:
        done = Run(out / "cells" / run.data.tags["signature"]).read_done()
        assert run.data.metrics["test_auroc"] == done["test_auroc"] and run.info.status == "FINISHED"


def test_only_what_is_missing_of_a_wider_grid_runs_what_fails_is_named_with_its_log_and_the_rest_is_kept(
    finished, tmp_path
):
    """Cells fail of a network that does not exist, and of a run of another signature under a cell's name, as a copy by
    hand or a damaged disk leaves it; that folder is kept, too."""
    given, out, _ = finished
    names = done_cells(out)
    kept = {name: (out / "cells" / name / "done.json").read_text() for name in names[2:]}
    (out / "cells" / names[0] / "done.json").unlink()
    strange = Run(out / "cells" / names[1])
    shutil.rmtree(strange.path)
    strange.path.mkdir()
    strange.info.write_text(json.dumps({"signature": "0123456789ab", "job": "finetune"}))
    spec, text = tmp_path / "spec.toml", given.read_text().replace('arch = "small_cnn"\n', "")
    spec.write_text(text.replace("seed = [0, 1]", 'seed = [0, 1]\narch = ["small_cnn", "resnet0"]'))
    said = sweep(spec, out, *ALONE)
    assert said.returncode == 1 and f"{CELLS + 2} to run" in said.stderr, said.stderr
    assert "signature 0123456789ab there" in said.stderr
    assert json.loads(strange.info.read_text())["signature"] == "0123456789ab"
    assert done_cells(out) == [name for name in names if name != names[1]]
    assert {name: (out / "cells" / name / "done.json").read_text() for name in names[2:]} == kept
    lines = [line for line in said.stderr.splitlines() if line.startswith("FAILED")]
    assert len(lines) == CELLS + 1 and sum("arch=resnet0" in line for line in lines) == CELLS
    assert all("1 attempts" in line for line in lines)
    assert "'resnet0' is not a timm model" in said.stderr
    assert f"cxrdist: {CELLS + 1} of {2 * CELLS} cells failed, {CELLS - 1} are done and kept" in said.stderr


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


def test_one_sweep_at_a_time_in_a_folder(tmp_path, spec, capsys):
    import fcntl

    out = tmp_path / "out"
    out.mkdir()
    with open(out / "sweep.lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert cli.main(["sweep", "--config", str(spec), "--out", str(out)]) == 2
    assert "another sweep is running" in capsys.readouterr().err


def test_a_folder_that_holds_something_else_stays_untouched(tmp_path, spec, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("mine")
    assert cli.main(["sweep", "--config", str(spec), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert "thesis.tex" in said and "not a sweep" in said
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]


def test_a_cluster_that_does_not_answer_is_an_error_not_a_hang(tmp_path, spec):
    said = sweep(spec, tmp_path / "out", "--start_seconds", "8", RAY_ADDRESS="127.0.0.1:1")
    assert said.returncode == 1
    assert "Ray did not start within 8 s" in said.stderr or "Ray ended" in said.stderr
    assert "127.0.0.1:1" in said.stderr and "Traceback" not in said.stderr
    wait_for(lambda: not started_by(str(tmp_path / "out")), None, 30)
