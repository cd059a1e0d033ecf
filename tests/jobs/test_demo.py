"""`cxrdist demo`, small but whole: real shards, real torchrun, real Ray, and what a user finds afterwards."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs import cli
from jobs.demo import SEEDS

TINY = "--scale.arch test_resnet --scale.patients 60 --scale.image_size 40 --scale.global_batch 32".split()
TINY += "--scale.pretrain_epochs 1 --scale.finetune_epochs 1 --scale.min_steps 2".split()
TINY += ["--scale.label_fractions", "[0.1,0.5,1.0]"]
FRACTIONS = (0.1, 0.5, 1.0)
ONE_RANK = ("--nproc", "1")
"""Pretraining in one process instead of three; the demo on real X-rays has its two ranks."""


def demo(out: Path, *words: str, timeout: float = 540) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jobs.cli", "demo", "--out", str(out), *TINY, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=out.parent)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, str]:
    """A finished demo on generated X-rays and what it printed."""
    out = tmp_path_factory.mktemp("demo") / "out"
    done = demo(out, *ONE_RANK)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return out, done.stdout


def test_the_demo_prints_every_command_it_runs(finished):
    _, text = finished
    typed = [line.split()[2] for line in text.splitlines() if line.startswith("$ cxrdist ")]
    assert typed == ["shard"] * 4 + ["pretrain"] * 2 + ["sweep", "collect", "table", "table", "plot"]


def test_the_demo_runs_every_cell_of_its_grid_and_collects_it(finished):
    out, _ = finished
    rows = pq.read_table(out / "results.parquet").to_pylist()
    cells = {(row["label_fraction"], row["train_dataset"], row["init_signature"], row["seed"]) for row in rows}
    assert len(cells) == len(FRACTIONS) * 2 * 3 * len(SEEDS)
    assert {row["label_fraction"] for row in rows} == set(FRACTIONS)


def test_the_demos_table_comes_from_the_parquet_file(finished, capsys):
    out, text = finished
    assert cli.main(["table", "label-efficiency", str(out / "results.parquet"), "--format", "markdown"]) == 0
    printed = capsys.readouterr().out.strip()
    assert printed == (out / "table.md").read_text().strip()
    assert printed in text
    assert "\\toprule" in (out / "table.tex").read_text()
    assert (out / "label_efficiency.png").read_bytes().startswith(b"\x89PNG")


READER = """
import json, sys, webdataset
read = {}
for sample in webdataset.WebDataset(sys.argv[1:], shardshuffle=False).decode("l8"):
    read[sample["__key__"]] = [str(sample["jpg"].dtype), sample["jpg"].ndim]
print(json.dumps(read))
"""


def test_webdataset_alone_reads_the_demos_shards(finished):
    out, _ = finished
    for name in ("nih", "chexpert"):
        folder = out / "shards" / name
        tars = sorted(str(path) for path in folder.glob("*.tar"))
        done = subprocess.run(
            [sys.executable, "-c", READER, *tars], capture_output=True, text=True, check=True, cwd=out
        )
        read = json.loads(done.stdout)
        assert set(read) == set(pq.read_table(folder / "index.parquet")["key"].to_pylist())
        assert all(found == ["uint8", 2] for found in read.values())


def test_a_second_demo_reuses_what_is_complete(finished):
    out, _ = finished
    kept = [*out.glob("pretrain/*/done.json"), *out.glob("sweep/cells/*/done.json"), *out.rglob("*.tar")]
    assert len(kept) >= 2 + 36 + 6
    before = {path: path.stat().st_mtime_ns for path in kept}
    again = demo(out, *ONE_RANK)
    assert again.returncode == 0, again.stderr[-2000:]
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert (out / "table.md").read_text().strip() in again.stdout


def test_two_demos_with_one_seed_give_the_same_table(finished, tmp_path):
    out, _ = finished
    other = tmp_path / "other"
    other.mkdir()
    # The drawings and shards are proven to be the same bytes elsewhere; training and the sweep are done anew here.
    shutil.copy(out / "demo.json", other)
    shutil.copytree(out / "source", other / "source")
    shutil.copytree(out / "shards", other / "shards")
    done = demo(other, *ONE_RANK)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (other / "table.md").read_text() == (out / "table.md").read_text()


def test_a_demo_interrupted_in_its_sweep_goes_on_when_asked_again(finished, tmp_path):
    out, _ = finished
    other = tmp_path / "other"
    shutil.copytree(out, other)
    for path in (other / "results.parquet", other / "table.md", other / "table.tex"):
        path.unlink()
    cells = sorted(path.parent for path in (other / "sweep" / "cells").glob("*/done.json"))
    shutil.rmtree(cells[0])
    assert demo(other, *ONE_RANK).returncode == 0
    assert (other / "table.md").read_text() == (out / "table.md").read_text()


def test_real_pneumonia_mnist_goes_through_the_same_chain(shared_data, tmp_path):
    npz = shared_data / "medmnist" / "pneumoniamnist.npz"
    done = demo(tmp_path / "out", "--data", str(npz))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rows = pq.read_table(tmp_path / "out" / "results.parquet").to_pylist()
    assert {row["test_dataset"] for row in rows} == {"pneumoniamnist"}
    full = [row for row in rows if row["metric"] == "auroc" and row["label_fraction"] == 1.0]
    assert full and all(row["n_pos"] == 390 and row["n_neg"] == 234 for row in full if row["label"] == "pneumonia")
    assert all(0.5 < row["value"] <= 1 for row in full)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--data", "nowhere.npz"], "no such file or folder"),
        (["--data", "."], "not a shard set"),
        (["--data", "notes.txt"], "neither a shard set"),
        (["--scale.patient", "3"], "did you mean --scale.patients?"),
    ],
)
def test_unusable_input_is_one_line_and_nothing_is_written(words, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("not an image")
    assert cli.main(["demo", "--out", "out", *words]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
    assert not os.path.exists("out")


def test_a_folder_that_holds_something_else_is_left_untouched(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert cli.main(["demo", "--out", str(tmp_path)]) == 2
    assert "holds something else" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_demo_with_other_settings_is_refused(finished, capsys):
    out, _ = finished
    started = time.time()
    assert cli.main(["demo", "--out", str(out), "--seed", "7"]) == 2
    assert "other settings" in capsys.readouterr().err
    assert not [path for path in out.iterdir() if path.stat().st_mtime > started]
