"""Several shard sets, each normalised by its own mean and deviation: in training and by those who use the encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cxrdist.core.augment import Augment
from cxrdist.core.augment_config import AugmentConfig
from cxrdist.core.backbones import read_metadata
from cxrdist.core.initialisation import describe
from cxrdist.errors import InputError
from cxrdist.finetune import classifier
from cxrdist.inference import network
from cxrdist.inference.export import preprocessing
from cxrdist.pretrain.methods import that_counts
from cxrdist.pretrain.union import own_scale
from shards import ShardSet, ShardUnion, read_card
from tests.cxrdist import findings
from tests.cxrdist.conftest import train
from tests.cxrdist.finetuning import trained
from tests.cxrdist.pretrain.test_data_parallel import go


@pytest.fixture(scope="session")
def pair(tmp_path_factory) -> list[Path]:
    """Two sets of 32 pixels whose pixels differ, with two images of each patient."""
    folder = tmp_path_factory.mktemp("pair")
    often = {"pneumonia": 0.9, "edema": 0.9}
    seldom = {"pneumonia": 0.1, "edema": 0.1}
    return [
        findings.make(folder, name="pale", seed=4, positive=often),
        findings.make(folder, name="dark", seed=5, positive=seldom),
    ]


def test_each_image_is_normalised_by_its_own_set(pair):
    sets = [ShardSet(place, "train") for place in pair]
    union, positions = ShardUnion(sets), np.array([3, 100, 89, 90, 5])
    scale = own_scale(union, positions)
    cards = [read_card(place) for place in pair]
    assert abs(cards[0].mean - cards[1].mean) > 0.05
    wanted = [(cards[number].mean, cards[number].std) for number in (0, 1, 0, 1, 0)]
    assert scale == pytest.approx(np.array(wanted), abs=1e-6)
    assert np.array_equal(own_scale(sets[1], np.arange(3)), scale[[1, 1, 1]])
    images = union.images(positions)
    config = AugmentConfig(preset="none")
    seen = Augment(config, 32, 32, mean=0.1, std=3.0).plain(images, scale)
    for row, (mean, std) in enumerate(wanted):
        alone = Augment(config, 32, 32, mean=mean, std=std).plain(images[row : row + 1])
        assert torch.allclose(seen[row], alone[0], atol=1e-5)


def test_two_ranks_learn_from_several_sets_as_one_does(pair, make_run):
    changes: dict[str, Any] = {"shards": [str(place) for place in pair], "global_batch": 12, "steps": 2}
    changes |= {"sync_bn": True, "watch": {"every_epochs": 1, "samples": 30}, "positives": "patient"}
    alone, ranks = (make_run(name, normalise="set", **changes) for name in ("alone", "ranks"))
    go(alone, 1)
    go(ranks, 2)
    wanted, found = (
        [line[key] for line in run.read_log() for key in ("loss", "val_loss", "knn_auroc") if key in line]
        for run in (alone, ranks)
    )
    assert len(wanted) == 4 and found == pytest.approx(wanted, rel=2e-4)


def test_the_encoder_says_so_and_whoever_reads_it_takes_the_images_own_set(pair, blobs, make_run, tmp_path):
    changes: dict[str, Any] = {"shards": [str(place) for place in pair], "steps": 1}
    run, union = make_run(normalise="set", **changes), make_run("union", **changes)
    assert run.read_info()["signature"] != union.read_info()["signature"]
    assert "normalise" not in that_counts(union.read_config() | {"shard_weights": None})
    train(run, nproc=1)
    train(union, nproc=1)
    assert run.read_log()[0]["loss"] != pytest.approx(union.read_log()[0]["loss"], rel=1e-4)
    cards, facts = [read_card(place) for place in pair], read_metadata(run.path)
    assert facts["normalise"] == "set"
    wanted = [{"name": card.name, "sha256": card.sha256, "mean": card.mean, "std": card.std} for card in cards]
    assert json.loads(facts["sets"]) == wanted
    start = describe(str(run.path))
    assert start.per_set and start.pixel is not None
    assert float(facts["mean"]) == pytest.approx((cards[0].mean + cards[1].mean) / 2), "of both sets together"

    probe: dict[str, Any] = {"mode": "linear", "arch": None, "image_size": None, "init": str(run.path)}
    for number, place in enumerate((pair[1], blobs)):
        tuned, card = trained(tmp_path / f"probe{number}", place, **probe), read_card(place)
        held = classifier.load(tuned.model).facts
        assert (held["mean"], held["std"]) == (card.mean, card.std)
        assert not network.load(tuned.path, "cpu").per_set, "a fine-tuned model has the scale that it was trained with"
    encoder = network.load(run.path, "cpu")
    fitted = encoder.fitted_to(cards[1])
    assert (encoder.mean, fitted.mean, fitted.std) == (float(facts["mean"]), cards[1].mean, cards[1].std)
    assert "shard set's own" in preprocessing(encoder)
    assert make_run("again", init=str(run.path), normalise="set", **changes).path.is_dir()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"shards": "ONE"}, "normalise set is for several shard sets"),
        ({"shards": "BOTH", "init": "imagenet"}, "init imagenet expects the one that it was trained with"),
    ],
)
def test_where_there_is_but_one_scale_it_is_refused(pair, make_run, tmp_path, changes, says):
    places = {"ONE": str(pair[0]), "BOTH": [str(place) for place in pair]}
    with pytest.raises(InputError, match=says):
        make_run(**{**changes, "shards": places[changes["shards"]], "normalise": "set"})
    assert not (tmp_path / "run").exists()
