"""One trial, from shards to numbers: learning, exactness, what is written, what an encoder brings."""

from __future__ import annotations

import ctypes
import dataclasses

import numpy as np
import pyarrow.compute as pc
import pytest
import torch

from cxrdist.finetune import classifier, labelled_data
from cxrdist.finetune import trial as finetuning
from cxrdist.finetune.parse import from_plain
from results import schema
from results.stats.metrics import compute
from tests.cxrdist.conftest import TINY
from tests.cxrdist.finetuning import trained, trial


@pytest.mark.parametrize(
    "changes",
    [
        {"mode": "full"},
        {"mode": "full", "head": {"kind": "dense", "hidden": 16}, "optim": {"name": "sgd", "lr": 0.02}},
        {"mode": "two_stage", "optim": {"name": "adam", "lr": 0.003}},
        {"mode": "last_n", "last_n": 3, "head": {"kind": "mlp", "hidden": 16}},
        {"mode": "linear", "arch": "resnet10t"},
        {"mode": "linear", "arch": TINY, "head": {"kind": "mlp", "hidden": 16}},
    ],
    ids=["full", "sgd_dense", "two_stage", "last_n_mlp", "linear", "linear_mlp"],
)
def test_every_mode_learns_and_writes_a_complete_run(tmp_path, blobs, changes):
    run = trained(tmp_path / "run", blobs, **changes)
    assert run.is_done and run.read_done()["val_auroc"] > 0.7
    assert run.model.is_file() and run.manifest.is_file() and run.metrics_log.is_file()
    assert not run.checkpoints.exists()
    table = schema.read_predictions(run.predictions)
    test = table.filter(pc.field("split") == "test")
    assert len(test) == 40 and len(set(test["key"].to_pylist())) == 40, "every test sample exactly once"
    rows = schema.read_metrics(run.metrics).to_pylist()
    own = {row["metric"]: row["value"] for row in rows if row["label"] == "pneumonia"}
    threshold = next(row["threshold"] for row in rows if row["metric"] == "recall" and row["label"] == "pneumonia")
    again = compute(np.array(test["y_true"]), np.array(test["y_score"]), threshold)
    assert own == pytest.approx({name: again[name] for name in own})
    assert {(row["mode"], row["init"], row["n_labelled"]) for row in rows} == {(changes["mode"], "scratch", 150)}


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(tmp_path, blobs):
    scores = {}
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        run = trained(tmp_path / name, blobs, seed=seed, augment={"preset": "medical"}, min_steps=6, epochs=1)
        scores[name] = np.array(schema.read_predictions(run.predictions)["y_score"])
    assert np.array_equal(scores["a"], scores["b"])
    assert not np.array_equal(scores["a"], scores["c"])


def test_a_finished_run_is_returned_and_not_trained_again(tmp_path, blobs):
    run = trained(tmp_path / "run", blobs, mode="linear", arch=TINY)
    before = run.done.read_text()
    trained(tmp_path / "run", blobs, mode="linear", arch=TINY)
    assert run.done.read_text() == before


def test_an_encoder_brings_its_arch_size_and_pixels_into_the_results(tmp_path, blobs, encoder):
    run = trained(tmp_path / "run", blobs, init=str(encoder), mode="linear", arch=None, image_size=None)
    row = schema.read_metrics(run.metrics).to_pylist()[0]
    assert (row["init"], row["pretrain_dataset"], row["init_signature"]) == ("simclr:nih", "nih", "abc")
    assert row["arch"] == "resnet10t" and run.read_config()["image_size"] == 32
    facts = classifier.load(run.model).facts
    assert (facts["mean"], facts["std"]) == (0.4, 0.2)


def test_an_encoder_is_probed_at_another_resolution_which_the_results_say(tmp_path, blobs, encoder):
    run = trained(tmp_path / "run", blobs, init=str(encoder), mode="linear", arch=None, image_size=48)
    assert run.read_config()["image_size"] == 48 and run.read_info()["init"]["image_size"] == 32
    assert '"image_size":48' in schema.read_metrics(run.metrics).to_pylist()[0]["config"]
    network = classifier.load(run.model)
    assert network.facts["image_size"] == 48 and network.facts["stem_size"] == 32, "the strides it was trained with"


def test_the_saved_model_gives_the_scores_that_were_written(tmp_path, blobs):
    run = trained(tmp_path / "run", blobs, arch=TINY, image_size=32, epochs=1, min_steps=4)
    config = from_plain(run.read_config(), "config")
    from cxrdist.finetune.features import Network
    from cxrdist.finetune.tester import probabilities

    model = classifier.load(run.model)
    network = Network(dataclasses.replace(config, cache=None), model, "float32")
    scores = probabilities(network.logits(labelled_data.load(config).test))[:, 0]
    table = schema.read_predictions(run.predictions).filter(pc.field("split") == "test")
    assert np.array_equal(scores, np.array(table["y_score"]))


def sharpness(images: torch.Tensor) -> float:
    """Mean squared Laplacian of images (B, 1, S, S)."""
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
    return float(torch.nn.functional.conv2d(images, kernel).square().mean())


def test_training_views_are_cut_from_images_with_room_for_the_crops(tmp_path, blobs):
    """Decoded at model size, crops of 40 to 100 % of the area would be enlarged: blurrier than val and test are."""
    common = {"arch": "resnet10t", "image_size": 20, "augment": {"preset": "none", "crop": [0.4, 0.6]}}
    views = {}
    for name, load_size in (("room", None), ("model size", 20)):
        config, run = trial(tmp_path / name, blobs, load_size=load_size, **common)
        views[name] = finetuning.Trial(config, run).training_views()(0, np.arange(100))
        assert views[name].shape == (100, 1, 20, 20)
    assert sharpness(views["room"]) > 1.5 * sharpness(views["model size"])
    config, run = trial(tmp_path / "no crops", blobs, **common | {"augment": {"preset": "none"}})
    whole = finetuning.Trial(config, run)
    tested = whole.network.pixels(whole.data.train).take(whole.data.train.positions[:9]).float() / 255
    tested = (tested - whole.data.card.mean) / whole.data.card.std
    assert torch.allclose(whole.training_views()(0, np.arange(9)), tested, atol=1e-5)


class Mallinfo(ctypes.Structure):
    """The answer of mallinfo2(3)."""

    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks".split()]
    _fields_ += [(name, ctypes.c_size_t) for name in ("uordblks", "fordblks", "keepcost")]


def test_freed_memory_is_kept(tmp_path, blobs):
    """Otherwise glibc maps every large tensor anew, and the kernel clears its pages in every step."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        pytest.skip("glibc: another C library")
    libc.mallinfo2.restype = Mallinfo
    _, run = trial(tmp_path / "run", blobs, epochs=1, min_steps=1)
    finetuning.main(str(run.path))
    before = libc.mallinfo2().hblkhd
    kept = torch.empty(64 << 20, dtype=torch.uint8)
    assert libc.mallinfo2().hblkhd == before and len(kept)
