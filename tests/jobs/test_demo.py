"""The demo's studies: one tiny demo that is run for real, and what `cxrdist demo` asks for."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs import cli, demo

TINY = "image_size=32 global_batch=16 steps=2 epochs=1 min_steps=1 nproc=1 device=cpu".split()
TINY += ["label_fractions=[1.0]", "seeds=[0]", 'modes=["full"]']
DRAWN = "--patients 24 --size 32 --workers 0"


def run(out: Path, name: str, values: list[str]) -> int:
    return cli.main(["study", "run", name, "--out", str(out), "--set", *values, *TINY])


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """One core for what is started inside, so that the sweep has one worker: a second imports torch for one cell."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    had = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(had)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, had)


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    """A small set of drawn X-rays."""
    place = tmp_path_factory.mktemp("demo") / "set"
    assert cli.main(["shard", "phantom", "--out", str(place), *DRAWN.split()]) == 0
    return place


@pytest.fixture(scope="module")
def finished(shards) -> Path:
    """A finished demo on these; the one that draws two sets takes twice as long and is among the slow tests."""
    out = shards.parent / "out"
    with one_core():
        assert run(out, "demo_shards", [f"data={shards}"]) == 0
    return out


def test_the_demo_makes_what_it_says_and_runs_every_cell_of_its_grid(finished):
    for name in ("table.tex", "table.md", "report.html", "specs/grid.toml", "study.toml", "logs/sweep.log"):
        assert (finished / name).stat().st_size > 0, name
    assert (finished / "label_efficiency.png").read_bytes().startswith(b"\x89PNG")
    rows = pq.read_table(finished / "results.parquet").to_pylist()
    assert len({(row["init_signature"], row["mode"], row["seed"]) for row in rows}) == 2
    assert "\\toprule" in (finished / "table.tex").read_text()


def test_the_demos_table_comes_from_the_parquet_file_and_is_printed_at_the_end(finished, capfd):
    capfd.readouterr()
    assert cli.main(["table", "label-efficiency", str(finished / "results.parquet"), "--format", "markdown"]) == 0
    table = (finished / "table.md").read_text().strip()
    assert capfd.readouterr().out.strip() == table
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.name != ".lock"}
    assert run(finished, "demo_shards", []) == 0
    shown = capfd.readouterr().out
    assert table in shown and "cxrdist explore" in shown
    assert shown.count("(complete)") == 6
    assert {path: path.stat().st_mtime_ns for path in before} == before, "a second demo reuses what is complete"


def test_the_report_shows_the_stages_and_the_results(finished):
    page = (finished / "report.html").read_text()
    assert "cxrdist demo: your data" in page and "simclr" in page
    assert "figure-label-efficiency" in page and "Provenance" in page


def test_a_cell_that_was_lost_is_made_again_and_what_is_made_from_it_too(finished, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(finished, other)
    lost = sorted((other / "sweep" / "cells").glob("*/done.json"))[0]
    lost.unlink()
    assert cli.main(["study", "status", str(other)]) == 0
    states = {line.split()[0]: line[21:30].strip() for line in capsys.readouterr().out.splitlines()[:-1]}
    assert states["simclr"] == "complete" and states["sweep"] == "partly"
    assert {states[name] for name in ("collect", "table", "table-latex", "figure")} == {"to do"}


READER = """
import json, sys, webdataset
read = {}
for sample in webdataset.WebDataset(sys.argv[1:], shardshuffle=False).decode("l8"):
    read[sample["__key__"]] = [str(sample["jpg"].dtype), sample["jpg"].ndim]
print(json.dumps(read))
"""


def test_webdataset_alone_reads_the_demos_shards(shards):
    tars = sorted(map(str, shards.glob("*.tar")))
    done = subprocess.run([sys.executable, "-c", READER, *tars], capture_output=True, text=True, check=True)
    read = json.loads(done.stdout)
    assert set(read) == set(pq.read_table(shards / "index.parquet")["key"].to_pylist())
    assert all(found == ["uint8", 2] for found in read.values())


@pytest.mark.slow
def test_two_demos_with_one_seed_give_the_same_table(tmp_path):
    drawn = ["patients=24", "size=32"]
    for name in ("one", "two"):
        assert run(tmp_path / name, "demo", drawn) == 0
    table = (tmp_path / "one" / "table.md").read_text()
    assert "phantom-nih" in table and "phantom-chexpert" in table
    assert table == (tmp_path / "two" / "table.md").read_text()


@pytest.mark.slow
def test_real_pneumonia_mnist_goes_through_the_same_chain(shared_data, tmp_path):
    npz = shared_data / "medmnist" / "pneumoniamnist.npz"
    assert run(tmp_path / "out", "demo_medmnist", [f"data={npz}"]) == 0
    rows = pq.read_table(tmp_path / "out" / "results.parquet").to_pylist()
    assert {row["test_dataset"] for row in rows} == {"pneumoniamnist"}
    full = [row for row in rows if row["metric"] == "auroc" and row["label_fraction"] == 1.0]
    assert full and all(row["n_pos"] == 390 and row["n_neg"] == 234 for row in full if row["label"] == "pneumonia")
    assert all(0.5 < row["value"] <= 1 for row in full)


def test_the_short_spelling_asks_for_the_study_of_the_data(shards, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("some.npz").write_bytes(b"")
    assert demo.study_of(demo.Config(seed=4))[1]["chexpert_seed"] == "5"
    assert demo.study_of(demo.Config(data="some.npz")) == (
        "demo_medmnist",
        {"seed": "0", "nproc": "2", "device": "auto", "data": str(tmp_path / "some.npz")},
    )
    name, values = demo.study_of(demo.Config(data=str(shards)))
    assert name == "demo_shards" and 4 <= int(values["global_batch"]) < 128
    for words in ([], ["--data", "some.npz"], ["--data", str(shards)]):
        assert cli.main(["demo", "--dry_run", *words]) == 0
        assert "$ cxrdist pretrain --shards " in capsys.readouterr().out
    assert os.listdir() == ["some.npz"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--data", "nowhere.npz"], "no such file or folder"),
        (["--data", "."], "not a shard set"),
        (["--data", "notes.txt"], "neither a shard set"),
        (["--nporc", "3"], "did you mean --nproc?"),
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
    assert cli.main(["demo", "--out", str(finished)]) == 2
    error = capsys.readouterr().err
    assert "holds a study that differs" in error and error.count("\n") == 1
