"""Shard sets behind a URL and staged ones: the same trial, the same bits."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cxrdist.core import shard_sets
from cxrdist.finetune import identity, labelled_data
from cxrdist.finetune import trial as finetuning
from cxrdist.finetune.evaluate import evaluate
from results import schema
from shards.read import stage as staging
from tests.cxrdist.conftest import TINY
from tests.cxrdist.finetuning import trained, trial
from tests.web import Web, serving

LINEAR = {"mode": "linear", "arch": TINY, "n_boot": 0}


@pytest.fixture
def web(blobs, tmp_path, monkeypatch) -> Iterator[Web]:
    """The shard set `blobs` behind an address; what is fetched lands in the test's own cache."""
    monkeypatch.setenv("CXRDIST_CACHE", str(tmp_path / "fetched"))
    with serving(blobs.parent) as server:
        yield server


def scores(run) -> np.ndarray:
    return np.array(schema.read_predictions(run.predictions)["y_score"])


def test_a_trial_reads_shards_behind_a_url_and_is_the_same_trial(web, blobs, tmp_path):
    url = f"{web.url}/{blobs.name}"
    config, run = trial(tmp_path / "far", blobs, **LINEAR)
    far = identity.resolve(dataclasses.replace(config, shards=url + "/"))
    assert identity.trial_signature(far) == identity.trial_signature(config)
    assert {Path(path).name for path in web.asked} == {"dataset.json"}, "naming a trial fetches the card alone"
    finetuning.run_trial(far, run)
    assert any((tmp_path / "fetched").rglob("index.parquet"))
    near = trained(tmp_path / "near", blobs, **LINEAR)
    assert np.array_equal(scores(run), scores(near))
    rows = evaluate(near.path, [url], device="cpu")
    own = schema.read_metrics(run.metrics).to_pylist()
    value = {row["value"] for row in (*rows, *own) if (row["label"], row["metric"]) == ("pneumonia", "auroc")}
    assert len(value) == 1


@pytest.mark.parametrize("stage", ["ram", "disk"])
def test_a_staged_trial_reads_the_copy(stage, blobs, tmp_path, monkeypatch):
    monkeypatch.setattr(staging, "_RAM", tmp_path / "shm")
    (tmp_path / "shm").mkdir()
    monkeypatch.setenv("SLURM_TMPDIR", str(tmp_path))
    config, run = trial(tmp_path / "run", blobs, **LINEAR, stage=stage)
    finetuning.run_trial(config, run)
    copy = labelled_data.opened(config.shards, "test", stage).path
    assert copy != blobs and tmp_path in copy.parents and (copy / "dataset.json").is_file()
    assert np.array_equal(scores(run), scores(trained(tmp_path / "near", blobs, **LINEAR)))


def test_an_address_that_is_none_is_one_clear_line(web):
    with pytest.raises(ValueError, match=r"/nothing/dataset.json: not found: is this the folder of a shard set"):
        shard_sets.card(f"{web.url}/nothing")


def test_a_cache_folder_may_name_a_variable_of_the_node(blobs, tmp_path, monkeypatch):
    monkeypatch.setenv("NODE_DISK", str(tmp_path / "disk"))
    trained(tmp_path / "run", blobs, **LINEAR, cache="$NODE_DISK/shared")
    assert list((tmp_path / "disk" / "shared").glob("features-*.npy"))
    assert not Path("$NODE_DISK").exists()
