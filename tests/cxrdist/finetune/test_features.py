"""Features and decoded images that trials share: the same bits as computed alone, made once, safe to share."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from cxrdist.core.shared_files import once
from cxrdist.finetune import labelled_data, linear_probe
from cxrdist.finetune.classifier import build
from cxrdist.finetune.decoded_images import Pixels, decoded
from cxrdist.finetune.features import Network
from results import schema
from shards import ShardSet
from tests.cxrdist.conftest import TINY
from tests.cxrdist.finetune.test_finetune import trained, trial


def test_a_trial_reads_from_the_shared_file_the_bits_it_would_compute_alone(tmp_path, blobs):
    found = {}
    for name, cache in (("alone", None), ("shared", str(tmp_path / "cache"))):
        changes = {"mode": "linear", "arch": TINY, "label_fraction": 0.2, "cache": cache}
        config, _ = trial(tmp_path / name, blobs, **changes)
        data = labelled_data.load(config)
        model = build(config, data.labels, (data.card.mean, data.card.std))
        found[name] = Network(config, model, "float32").features(data.train)
        run = trained(tmp_path / name, blobs, **changes)
        found[f"{name} scores"] = np.array(schema.read_predictions(run.predictions)["y_score"])
    assert np.array_equal(found["alone"], found["shared"])
    assert np.array_equal(found["alone scores"], found["shared scores"])
    kinds = sorted(path.name.split("-")[0] for path in (tmp_path / "cache").glob("[!.]*"))
    assert kinds == ["features"] * 3 + ["images"] * 3, "train, val and test, once each"


def test_another_encoder_or_size_is_another_file(tmp_path, blobs):
    for size in (28, 32):
        trained(tmp_path / f"run{size}", blobs, mode="linear", arch=TINY, image_size=size, cache=str(tmp_path / "c"))
    assert len(list((tmp_path / "c").glob("features-*.npy"))) == 6


def test_decoded_images_are_those_of_the_shard_set(tmp_path, blobs):
    shards = ShardSet(blobs, "test")
    stored = decoded(shards, 20, tmp_path, threads=2)
    assert np.array_equal(stored, shards.images(np.arange(len(shards)), 20)[:, 0].numpy())
    some = np.array([3, 1, 1, 30])
    for cache, known in ((str(tmp_path), np.arange(len(shards))), (None, np.array([1, 3, 30]))):
        taken = Pixels(shards, 20, known, cache).take(some)
        assert np.array_equal(taken[:, 0].numpy(), stored[some])


def _count(path: str, log: str) -> None:
    def fill(temporary: Path) -> None:
        with open(log, "a") as file:
            file.write("x")
        temporary.write_bytes(b"content")

    once(Path(path), fill)


def test_of_many_processes_one_makes_the_file(tmp_path):
    context = multiprocessing.get_context("fork")
    work = [context.Process(target=_count, args=(str(tmp_path / "f"), str(tmp_path / "log"))) for _ in range(4)]
    for process in work:
        process.start()
    for process in work:
        process.join(60)
    assert (tmp_path / "log").read_text() == "x" and (tmp_path / "f").read_bytes() == b"content"


def test_a_maker_that_fails_leaves_nothing_and_the_next_one_begins_again(tmp_path):
    def broken(temporary: Path) -> None:
        temporary.write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        once(tmp_path / "f", broken)
    assert [name for name in os.listdir(tmp_path) if not name.endswith(".lock")] == []

    def whole(temporary: Path) -> None:
        temporary.write_bytes(b"whole")

    assert once(tmp_path / "f", whole).read_bytes() == b"whole"


def test_the_probe_is_the_logistic_regression_of_scaled_features():
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(300, 12)) * rng.uniform(0.1, 5, 12) + rng.normal(size=12)).astype(np.float32)
    x[:, 5] = 2.0  # never changes
    y = (x[:, :1] + rng.normal(size=(300, 1)) > 0).astype(np.float32)
    y = np.concatenate([y, np.zeros((300, 1), np.float32)], 1)
    mask = rng.random((300, 2)) < 0.9
    ones = (np.ones(2), np.array([1.0, 1.0]))
    found = linear_probe.fit(x, y, mask, ones, [0.05], None)
    known = mask[:, 0]
    scale = x.std(0)
    scale[5] = np.inf
    scaled = (x - x.mean(0)) / scale
    reference = LogisticRegression(C=1 / (0.05 * known.sum()), tol=1e-8, max_iter=2000)
    reference.fit(scaled[known], y[known, 0])
    assert x @ found.weight[0] + found.bias[0] == pytest.approx(reference.decision_function(scaled), abs=2e-3)
    assert np.isnan(found.l2[1]) and not found.weight[1].any(), "a label without positives stays unfitted"


def test_the_penalty_is_chosen_on_val(tmp_path):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 60)).astype(np.float32)
    truth = rng.normal(size=60)
    y = ((x @ truth + 4 * rng.normal(size=40)) > 0).astype(np.float32)[:, None]
    xv = rng.normal(size=(500, 60)).astype(np.float32)
    yv = (xv @ truth > 0).astype(np.float32)[:, None]
    penalties = [1e-4, 1e-2, 1.0, 100.0]
    ones = (np.ones(1), np.ones(1))
    known, known_v = np.ones((40, 1), bool), np.ones((500, 1), bool)
    chosen = linear_probe.fit(x, y, known, ones, penalties, (xv, yv, known_v))
    from sklearn.metrics import roc_auc_score

    def value(found):
        return roc_auc_score(yv[:, 0], xv @ found.weight[0] + found.bias[0])

    each = {p: value(linear_probe.fit(x, y, known, ones, [p], None)) for p in penalties}
    assert value(chosen) == pytest.approx(max(each.values()), abs=2e-3)
