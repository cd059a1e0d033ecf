"""Features and decoded images that trials share: the same bits as computed alone, made once, safe to share."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from sklearn.linear_model import LogisticRegression

from cxrdist.core.shared_files import once
from cxrdist.finetune import decoded_images, labelled_data, linear_probe
from cxrdist.finetune import trial as finetuning
from cxrdist.finetune.classifier import build
from cxrdist.finetune.decoded_images import Pixels, StepImages, decoded
from cxrdist.finetune.features import Network
from cxrdist.finetune.loop import Stopped
from results import schema
from shards import Order, ShardSet
from shards.read.loader import Loader
from tests.cxrdist.conftest import TINY
from tests.cxrdist.finetuning import StopAfter, trained, trial


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


def test_batches_of_images_come_in_their_order_whether_they_are_kept_or_decoded_ahead(blobs, monkeypatch):
    shards, parts = ShardSet(blobs, "train"), [np.arange(start, start + 9) % 150 for start in range(0, 150, 7)]
    kept = Pixels(shards, 20, np.arange(150), None)
    monkeypatch.setattr(decoded_images, "IN_MEMORY_BYTES", 0)
    fresh = Pixels(shards, 20, np.arange(150), None, workers=3)
    assert kept.kept and not fresh.kept
    for part, one, other in zip(parts, kept.batches(parts), fresh.batches(parts), strict=True):
        assert torch.equal(one, shards.images(part, 20)) and torch.equal(other, one)


def decoding() -> list[str]:
    """Threads that decode for a training."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("shards")]


def test_the_images_of_the_next_steps_are_decoded_before_they_are_asked_for(blobs, monkeypatch):
    shards, positions = ShardSet(blobs, "train"), np.arange(10, 140)
    order, read, real = Order(130, seed=3, global_batch=16), [], ShardSet.read_into
    monkeypatch.setattr(ShardSet, "read_into", lambda own, at, out: (real(own, at, out), read.extend(at.tolist()))[0])
    images = StepImages(shards, positions, order, steps=20, size=20, threads=2, pin=False)
    for step in (0, 1, 7, 8, 3):  # steps are left out, and gone back to
        read.clear()
        assert torch.equal(images.take(step), shards.images(positions[order.positions(step)], 20))
    until = time.monotonic() + 60
    while not set(order.positions(4).tolist()) <= set(read) and time.monotonic() < until:
        time.sleep(0.01)
    assert time.monotonic() < until and decoding()
    images.close()
    assert not decoding()


def test_a_trial_whose_images_do_not_fit_into_memory_ends_with_the_same_bits(tmp_path, blobs, monkeypatch):
    """Stopped every third step, and leaving steps out when patience ends the first stage."""
    changes: dict = {"mode": "two_stage", "head_epochs": 2, "epochs": 4, "min_steps": 0, "eval_steps": 1, "patience": 2}
    changes |= {"augment": {"preset": "medical"}, "optim": {"lr": 0.05, "backbone_lr_factor": 0.1}}
    kept = trained(tmp_path / "kept", blobs, **changes)
    began = []
    monkeypatch.setattr(decoded_images, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(decoded_images, "Loader", lambda *a, **k: (began.append(k["start_step"]), Loader(*a, **k))[1])
    config, run = trial(tmp_path / "decoded", blobs, **changes)
    while not run.is_done:
        with contextlib.suppress(Stopped):
            finetuning.run_trial(config, run, StopAfter(3))
        assert not decoding()
    first, second = (safetensors.torch.load_file(r.model) for r in (kept, run))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert run.read_log() == kept.read_log()
    assert began[0] == 0 and len(began) > 2 and began == sorted(began)


def test_a_trial_that_is_given_up_stops_its_decoding(tmp_path, blobs, monkeypatch):
    monkeypatch.setattr(decoded_images, "IN_MEMORY_BYTES", 0)
    config, run = trial(tmp_path / "run", blobs, eval_steps=2)
    begun = finetuning.validations(config, run)
    next(begun)
    assert decoding()
    begun.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert run.is_done and run.read_done()["ended"] == "scheduler" and not decoding()


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
