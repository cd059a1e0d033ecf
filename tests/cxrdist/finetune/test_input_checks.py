"""What the cards of shard sets tell is what a trial finds when it opens them, so that a login node can refuse it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from cxrdist import pending
from cxrdist.core.backbones import build_backbone, save_encoder
from cxrdist.errors import InputError
from cxrdist.finetune import identity, input_checks, labelled_data
from cxrdist.finetune import trial as finetuning
from cxrdist.finetune.config import FinetuneConfig
from cxrdist.finetune.evaluate import evaluate
from shards import ShardSet, read_card
from shards.labels import NULL
from tests.cxrdist import findings
from tests.cxrdist.finetuning import trained, trial


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> dict[str, Path]:
    """Two sets that share pneumonia, and one that shares no label with them."""
    folder = tmp_path_factory.mktemp("sets")
    return {
        "here": findings.make(folder, name="here", unsure=0.3),
        "there": findings.make(folder, name="there", labels=("pneumonia", "mass"), seed=1),
        "apart": findings.make(folder, name="apart", labels=("fracture",), seed=2),
    }


def config(places: dict[str, Path], **values) -> FinetuneConfig:
    return FinetuneConfig(shards=str(places["here"]), out="out", **values)


def test_labels_left_to_the_sets_are_those_with_a_value_in_the_split(places):
    for place in (places["here"], places["there"]):
        card, with_values = read_card(place), {}
        for split in ("train", "test"):
            shards = ShardSet(place, split)
            with_values[split] = tuple(
                name for name in shards.labels if (shards.index.label(name)[shards.rows] != NULL).any()
            )
        assert input_checks.labels_of(card, None, str(place)) == with_values["train"]
        assert input_checks.testable(card) == (*with_values["test"], "any_finding")


def test_a_label_without_a_value_in_the_split_is_none_of_it(places):
    card = read_card(places["here"])
    silent = {"n": 9, "labels": {name: {"null": 9} for name in card.labels}}
    silent["labels"]["edema"] = {"null": 8, "positive": 1}
    card = dataclasses.replace(card, counts={"train": silent, "test": silent})
    assert input_checks.labels_of(card, None, "here") == ("edema",)
    assert input_checks.testable(card) == ("edema", "any_finding")
    silent["labels"]["edema"] = {"null": 9}
    assert input_checks.testable(card) == ()
    with pytest.raises(InputError, match="has no labels"):
        input_checks.labels_of(card, None, "here")


@pytest.mark.parametrize(
    ("wanted", "labels"),
    [
        (["edema"], ("edema",)),
        (["Pneumonia", "any_finding"], ("pneumonia", "any_finding")),
        (["any_finding"], ("any_finding",)),
        (["edema", "Oedema"], ("edema",)),
    ],
)
def test_labels_asked_for_are_found_by_any_spelling_and_once(places, wanted, labels):
    assert input_checks.labels_of(read_card(places["here"]), wanted, "here") == labels


@pytest.mark.parametrize("wanted", [["nonsense"], ["mass"], ["edema", "mass"], []])
def test_labels_that_are_not_there_are_refused_before_anything_starts(places, wanted):
    with pytest.raises(InputError, match=r"unknown label|no label mass in this shard set; it has|has no labels"):
        identity.resolve(config(places, labels=wanted))
    with pytest.raises(InputError):
        pending.check_trial(config(places, labels=wanted, init="yet/to/be/made"))


def test_a_further_test_set_must_share_a_label(places):
    for labels, place, good in (
        (None, "there", True),
        (["edema"], "there", False),
        (None, "apart", False),
        (["edema", "any_finding"], "apart", True),
    ):
        asked = config(places, labels=labels, eval_shards=str(places[place]))
        if good:
            identity.resolve(asked)
            pending.check_trial(asked)
            continue
        for check in (identity.resolve, pending.check_trial):
            with pytest.raises(InputError, match="none of its labels"):
                check(asked)


def test_a_policy_is_for_the_label_that_it_names_however_it_is_spelt(places):
    shards = ShardSet(places["here"], "train")
    masks = [
        labelled_data.split_of(shards, ("pneumonia", "edema"), config(places, uncertain=uncertain)).mask
        for uncertain in ({"default": "ones", name: "ignore"} for name in ("edema", "Oedema", "Pulmonary edema"))
    ]
    assert masks[0][:, 0].all() and not masks[0][:, 1].all()
    assert all(np.array_equal(mask, masks[0]) for mask in masks)


def test_a_policy_for_what_is_no_label_is_refused(places, tmp_path):
    with pytest.raises(InputError, match="'edmea', which is not a label; the labels are edema, pneumonia"):
        identity.resolve(config(places, uncertain={"edmea": "ignore"}))
    identity.resolve(config(places, uncertain={"fracture": "ignore", "default": "ones"}))  # of another set of a sweep
    run = trained(tmp_path / "run", places["here"], mode="linear", arch="test_resnet", image_size=32, n_boot=0)
    with pytest.raises(InputError, match="uncertain names 'edmea'"):
        evaluate(run.path, [str(places["there"])], uncertain={"edmea": "ignore"})


def test_weights_are_looked_at_as_far_as_they_are_there(places, tmp_path):
    facts = {"arch": "test_resnet", "in_chans": 1, "image_size": 32, "stem": "standard", "mean": 0.5, "std": 0.25}
    save_encoder(tmp_path / "encoder.safetensors", build_backbone("test_resnet", 32, stem="standard"), facts)
    started = config(places, init=str(tmp_path))
    pending.check_trial(started)
    for change, says in (
        ({"arch": "resnet18"}, "asks for arch resnet18"),
        ({"stem": "small"}, "has the standard stem, this run asks for small"),
        ({"init_mean": 0.5, "init_std": 0.2}, "has its own pixel scale"),
        ({"arch": "small_cnn", "init": "imagenet"}, "starts from scratch only"),
    ):
        for check in (identity.resolve, pending.check_trial):
            with pytest.raises(InputError, match=says):
                check(dataclasses.replace(started, **change))
    (tmp_path / "encoder.safetensors").unlink()
    pending.check_trial(dataclasses.replace(started, arch="resnet18"))  # the folder of a run that is still training


def test_a_label_that_the_shard_set_lacks_is_refused(tmp_path, blobs):
    with pytest.raises(InputError, match="hernia"):
        trial(tmp_path / "run", blobs, labels="hernia")
    config, run = trial(tmp_path / "run", blobs)
    with pytest.raises(InputError, match="hernia"):
        finetuning.run_trial(dataclasses.replace(config, labels=["hernia"]), run)


def test_a_test_set_without_a_shared_label_is_refused_before_training(tmp_path, blobs):
    other = findings.make(tmp_path, name="other", labels=("edema",))
    with pytest.raises(InputError, match="none of its labels .edema. is among the trial's"):
        trial(tmp_path / "run", blobs, labels="pneumonia", eval_shards=[str(other)])
    config, run = trial(tmp_path / "run", blobs, labels="pneumonia")
    with pytest.raises(InputError, match="none of its labels .edema. is among those the model knows"):
        finetuning.run_trial(dataclasses.replace(config, eval_shards=[str(other)]), run)
    assert not run.metrics_log.exists() and not run.checkpoints.exists()
