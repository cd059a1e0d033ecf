"""Training on one dataset and testing on another, by the commands that a user types: real pairs and generated ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs import cli
from results import schema
from results.run import Run
from shards import read_card
from shards.labels import SHARED_NIH_CHEXPERT
from tests.cxrdist.conftest import TINY

TRIAL = f"--mode linear --arch {TINY} --image_size 32 --epochs 3 --n_boot 20 --threads 1 --device cpu".split()


def run_on(shards: Path, out: Path, labels: str) -> Run:
    assert cli.main(["finetune", "--shards", str(shards), "--out", str(out), "--labels", labels, *TRIAL]) == 0
    return Run(out)


def aurocs(run: Run, dataset: str) -> dict[str, dict[str, Any]]:
    rows = schema.read_metrics(run.metrics).to_pylist()
    return {row["label"]: row for row in rows if row["test_dataset"] == dataset and row["metric"] == "auroc"}


def check_both_ways(places: dict[str, Path], folder: Path, labels: str, capsys: Any) -> dict[tuple[str, str], dict]:
    """Train on each, test on the other; returns the AUROC rows by (trained on, tested on)."""
    found = {}
    for here, there in (tuple(places), tuple(reversed(places))):
        run = run_on(places[here], folder / here, labels)
        capsys.readouterr()
        assert cli.main(["evaluate", str(run.path), "--shards", str(places[there]), "--device", "cpu"]) == 0
        shown = capsys.readouterr().out
        other = aurocs(run, there)
        assert {row["train_dataset"] for row in other.values()} == {here}
        for label, row in other.items():
            assert f"{label} " in shown and (row["value"] is None or f"{row['value']:.4f}" in shown)
        own = schema.read_predictions(run.predictions).to_pylist()
        tested = {row["key"] for row in own if row["dataset"] == there and row["split"] == "test"}
        assert len(tested) == read_card(places[there]).counts["test"]["n"], "every test image once"
        found[here, there] = other
    return found


@pytest.mark.slow
def test_real_kermany_and_nih_test_each_other_on_pneumonia_and_any_finding(shared_data, tmp_path, capsys):
    source = tmp_path / "nih"
    source.mkdir()
    (source / "images").symlink_to(shared_data / "nih64" / "images")
    for name in ("Data_Entry_2017_v2020.csv", "train_val_list.txt", "test_list.txt"):
        (source / name).symlink_to(shared_data / "nih" / name)
    places = {"kermany": tmp_path / "shards" / "kermany", "nih": tmp_path / "shards" / "nih"}
    common = ["--size", "64", "--workers", "2"]
    words = ["shard", "nih", "--src", str(source), "--out", str(places["nih"]), "--allow_missing", "true", *common]
    assert cli.main(words) == 0
    words = ["shard", "kermany", "--src", str(shared_data / "chest_xray"), "--out", str(places["kermany"]), *common]
    assert cli.main(words) == 0
    found = check_both_ways(places, tmp_path / "runs", "pneumonia,any_finding", capsys)
    for (_, there), rows in found.items():
        assert set(rows) == {"pneumonia", "any_finding", "macro"}
        positive = read_card(places[there]).counts["test"]["labels"]["pneumonia"]["positive"]
        assert rows["pneumonia"]["n_pos"] == positive > 0
        assert all(0 <= row["value"] <= 1 for row in rows.values())
    assert found["nih", "kermany"]["any_finding"]["n_pos"] == found["nih", "kermany"]["pneumonia"]["n_pos"]


def test_generated_nih_and_chexpert_test_each_other_on_their_seven_labels(tmp_path, capsys):
    places = {}
    for seed, style in enumerate(("nih", "chexpert")):
        places[style] = tmp_path / "shards" / style
        words = ["--style", style, "--patients", "90", "--size", "48", "--seed", str(seed), "--workers", "1"]
        assert cli.main(["shard", "phantom", "--out", str(places[style]), *words]) == 0
    names = {read_card(path).name: path for path in places.values()}
    found = check_both_ways(names, tmp_path / "runs", ",".join(SHARED_NIH_CHEXPERT), capsys)
    for rows in found.values():
        assert set(rows) <= {*SHARED_NIH_CHEXPERT, "macro"} and len(rows) > 3
