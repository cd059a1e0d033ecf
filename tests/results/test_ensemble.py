"""Ensembles: which runs are averaged, what the averages are, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs import cli
from results import schema
from results.collect import collect
from results.ensemble import make
from results.errors import InputError
from results.run import Run
from results.stats.metrics import auroc
from results.tables import build
from tests.results import simulate

ONE: dict[str, Any] = {"labels": {"edema": 0.8}}


@pytest.fixture(scope="module")
def ensembles(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ensembles")
    assert cli.main(["ensemble", str(study / "cells"), "--out", str(out)]) == 0
    return out


def test_runs_of_the_same_labelled_images_and_seed_are_one_ensemble(study: Path, ensembles: Path) -> None:
    rows = collect(ensembles)[0].to_pylist()
    made = {(row["label_fraction"], row["seed"]) for row in rows}
    assert len(list(ensembles.iterdir())) == len(made) == 9
    assert {row["init"] for row in rows} == {"imagenet + scratch + simclr:nih"}
    assert {(row["pretrain_dataset"], row["method"], row["n_parameters"]) for row in rows} == {
        ("nih", "simclr", 3 * 11_177_000)
    }
    names = {name for name in ("ci_low", "ci_high") if rows[0][name] is not None}
    assert names == {"ci_low", "ci_high"}


def test_an_ensemble_s_score_is_the_mean_of_its_members(tmp_path: Path) -> None:
    members = [simulate.finetune(tmp_path / "runs", init=init, **ONE) for init in ("scratch", "imagenet", "simclr:nih")]
    (run,), warnings = make([str(tmp_path / "runs")], tmp_path / "out")
    assert warnings == []
    tables = [schema.read_predictions(one.predictions).to_pylist() for one in [*members, run]]
    scores = [{(row["split"], row["key"]): row["y_score"] for row in table} for table in tables]
    for place, value in scores[-1].items():
        assert value == pytest.approx(np.mean([one[place] for one in scores[:-1]]), abs=1e-6)
    test = [row for row in tables[-1] if row["split"] == "test"]
    expected = auroc(np.array([row["y_true"] == 1 for row in test]), np.array([row["y_score"] for row in test]))
    found = {(r["label"], r["metric"]): r["value"] for r in schema.read_metrics(run.metrics).to_pylist()}
    assert found["edema", "auroc"] == pytest.approx(expected)
    alone = [r["value"] for m in members for r in schema.read_metrics(m.metrics).to_pylist() if r["metric"] == "auroc"]
    assert expected > max(alone), "independent errors average out"


def test_ensembles_stand_in_a_table_beside_their_members(study: Path, ensembles: Path) -> None:
    table = collect([study, ensembles])[0]
    text = str(build("label-efficiency", table))
    assert "imagenet + scratch + simclr:nih" in text and "ImageNet" in text


def test_beside_other_runs_a_table_says_of_an_ensemble_that_it_is_one_and_no_settings(
    study: Path, ensembles: Path
) -> None:
    """It has none of its own; those of its members, spelled out, would be pages."""
    (note,) = [note for note in build("label-efficiency", collect([study, ensembles])[0]).notes if "beyond" in note]
    assert note.startswith("The runs differ beyond what the table shows in ensemble (3 values ")
    assert len(note) < 200 and "optim" not in note


def test_the_same_ensembles_again_are_left_as_they_are(study: Path, ensembles: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in ensembles.rglob("*.parquet")}
    make([str(study / "cells")], ensembles)
    assert {path: path.stat().st_mtime_ns for path in ensembles.rglob("*.parquet")} == before


def test_runs_that_share_no_labelled_images_are_no_ensemble(tmp_path: Path) -> None:
    for seed in (0, 1):
        simulate.finetune(tmp_path / "runs", seed=seed, **ONE)
    with pytest.raises(InputError, match="no two runs learnt from the same labelled images with the same seed"):
        make([str(tmp_path / "runs")], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_ensemble_that_lacks_a_member_is_named(tmp_path: Path) -> None:
    for seed, inits in ((0, ("scratch", "imagenet")), (1, ("scratch",))):
        for init in inits:
            simulate.finetune(tmp_path / "runs", init=init, seed=seed, **ONE)
    with pytest.raises(InputError, match=r"label_fraction 1.0, seed 1: the ensemble of scratch has other members"):
        make([str(tmp_path / "runs")], tmp_path / "out")


def test_members_that_were_tested_on_other_samples_are_refused(tmp_path: Path) -> None:
    for data_seed, init in enumerate(("scratch", "imagenet")):
        simulate.finetune(tmp_path / "runs", init=init, data_seed=data_seed, **ONE)
    with pytest.raises(InputError, match="were not tested on the same samples, or not with the same labels"):
        make([str(tmp_path / "runs")], tmp_path / "out")


def test_test_sets_beside_that_of_the_training_are_left_out(tmp_path: Path) -> None:
    for init, sets in (("scratch", ("phantom", "other")), ("imagenet", ("phantom",))):
        hashes = {"train_dataset_hash": "ab" * 32, "test_dataset_hash": "ab" * 32}
        run = simulate.finetune(tmp_path / "runs", init=init, test_datasets=sets, **hashes, **ONE)
        rows = schema.read_metrics(run.metrics).to_pylist()
        schema.write_metrics(
            run.metrics,
            [row | ({"test_dataset_hash": "cd" * 32} if row["test_dataset"] == "other" else {}) for row in rows],
        )
    (run,), _ = make([str(tmp_path / "runs")], tmp_path / "out")
    held = {(row["test_dataset"], row["test_dataset_hash"]) for row in schema.read_metrics(run.metrics).to_pylist()}
    assert held == {("phantom", "ab" * 32)}, "another set's rows would carry this one's hash and split"


def test_ensembles_are_scored_at_every_level_of_all_their_members(tmp_path: Path) -> None:
    for init in ("scratch", "imagenet"):
        simulate.finetune(tmp_path / "runs", init=init, levels=("image", "study"), **ONE)
    made, _ = make([str(tmp_path / "runs")], tmp_path / "out")
    assert len(made) == 1
    rows = schema.read_metrics(made[0].metrics).to_pylist()
    values = {row["level"]: row["value"] for row in rows if (row["label"], row["metric"]) == ("edema", "auroc")}
    assert set(values) == {"image", "study"} and values["image"] != values["study"]
    assert made[0].read_done()["test_auroc"] == values["image"]


def test_an_ensemble_broken_off_is_made_whole_by_the_same_call(tmp_path: Path) -> None:
    for init in ("scratch", "imagenet"):
        simulate.finetune(tmp_path / "runs", init=init, **ONE)
    (run,), _ = make([str(tmp_path / "runs")], tmp_path / "out")
    scores = schema.read_predictions(run.predictions)
    run.done.unlink()
    run.metrics.unlink()
    (again,), _ = make([str(tmp_path / "runs")], tmp_path / "out")
    assert again.path == run.path and Run(run.path).is_done and schema.read_predictions(run.predictions).equals(scores)
