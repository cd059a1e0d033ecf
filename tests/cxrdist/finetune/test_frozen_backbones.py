"""Heads that stand on a shared frozen network: small files, the same scores, and an error where the network is gone."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.torch

from cxrdist.errors import InputError
from cxrdist.finetune import classifier
from cxrdist.finetune.evaluate import evaluate
from cxrdist.finetune.frozen_backbones import fingerprint
from cxrdist.inference import network as networks
from jobs import cli
from results import schema
from shards import ShardSet
from tests.cxrdist.conftest import TINY
from tests.cxrdist.finetuning import trained

LINEAR = {"mode": "linear", "arch": TINY, "n_boot": 0}


@pytest.fixture(scope="module")
def pair(tmp_path_factory, blobs):
    """One trial with a whole model, and two seeds of it as heads on one network."""
    folder = tmp_path_factory.mktemp("heads")
    whole = trained(folder / "whole", blobs, **LINEAR)
    kept = {"backbones": str(folder / "backbones")}
    return whole, *(trained(folder / f"head{seed}", blobs, seed=seed, **LINEAR, **kept) for seed in (0, 1))


def test_a_head_is_small_and_its_network_is_kept_once(pair):
    whole, head, other = pair
    assert head.read_info()["signature"] == whole.read_info()["signature"], "the same trial, written otherwise"
    assert head.model.stat().st_size < 20_000 < whole.model.stat().st_size / 50
    (network,) = (head.path.parent / "backbones").glob("[!.]*")
    for run in (head, other):
        assert all(name.startswith("head.") for name in safetensors.torch.load_file(run.model))
    assert network.stat().st_size == pytest.approx(whole.model.stat().st_size, rel=0.01)


def test_a_head_on_its_network_is_the_whole_model(pair, blobs):
    whole, head, _ = pair
    models = [classifier.load(run.model).state_dict() for run in (whole, head)]
    assert fingerprint(models[0]) == fingerprint(models[1])
    shards = ShardSet(blobs, "test")
    images = shards.images(np.arange(len(shards)), 28)
    scores = [networks.load(run.path, "cpu").scores(images) for run in (whole, head)]
    assert np.array_equal(scores[0], scores[1])
    test = schema.read_predictions(head.predictions).to_pylist()
    assert [row["y_score"] for row in test if row["split"] == "test"] == pytest.approx(scores[1][:, 0].tolist())


def test_evaluate_and_the_commands_that_look_into_a_run_take_a_head(pair, blobs, tmp_path):
    _, head, other = pair
    before = schema.read_metrics(other.metrics).to_pylist()
    evaluate(other.path, [str(blobs)], device="cpu")
    after = schema.read_metrics(other.metrics).to_pylist()
    key = {"label": "pneumonia", "metric": "auroc"}
    assert [[r["value"] for r in rows if key.items() <= r.items()] for rows in (before, after)][0] == [
        r["value"] for r in after if key.items() <= r.items()
    ]
    for words in (
        ("explain", str(head.path), "--out", str(tmp_path / "explain"), "--count", "1", "--device", "cpu"),
        ("embed", str(head.path), "--shards", str(blobs), "--split", "test", "--out", str(tmp_path / "e.parquet")),
    ):
        assert cli.main(list(words)) == 0


def test_a_network_that_is_gone_damaged_or_another_is_said_with_the_mend(tmp_path, blobs, capsys):
    run = trained(tmp_path / "run", blobs, **LINEAR, backbones=str(tmp_path / "backbones"))
    (network,) = (tmp_path / "backbones").glob("[!.]*")
    content = network.read_bytes()
    network.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"frozen network under .* is damaged .*put it back"):
        classifier.load(run.model)
    other = safetensors.torch.load(content)
    next(value for name, value in other.items() if name.endswith("weight")).add_(1)
    safetensors.torch.save_file(other, network)
    with pytest.raises(InputError, match="is not the frozen network that"):
        classifier.load(run.model)
    network.unlink()
    capsys.readouterr()
    assert cli.main(["evaluate", str(run.path), "--shards", str(blobs)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert f"{network}, is gone: put it back there" in told and "--whole_models" in told


def test_a_head_moves_with_its_network(tmp_path, blobs):
    run = trained(tmp_path / "old" / "cells" / "run", blobs, **LINEAR, backbones=str(tmp_path / "old" / "backbones"))
    scores = np.array(schema.read_predictions(run.predictions)["y_score"])
    (tmp_path / "old").rename(tmp_path / "new")
    model = networks.load(tmp_path / "new" / "cells" / "run", "cpu")
    shards = ShardSet(blobs, "test")
    found = model.scores(shards.images(np.arange(len(shards)), 28))[:, 0]
    assert found.tolist() == pytest.approx(scores[-len(shards) :].tolist())
