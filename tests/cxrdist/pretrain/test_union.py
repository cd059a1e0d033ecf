"""Pretraining on several shard sets: one order on any number of ranks, one name and content in the results."""

from __future__ import annotations

import hashlib
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cxrdist.core import checkpoint
from cxrdist.core.backbones import load_encoder
from cxrdist.core.distributed import Ranks
from cxrdist.core.initialisation import describe
from cxrdist.errors import InputError
from cxrdist.inference.network import own_shards
from cxrdist.pending import check_pretraining
from cxrdist.pretrain import loop
from cxrdist.pretrain.online_eval import OnlineEvaluation
from cxrdist.pretrain.samples import Pool
from cxrdist.pretrain.union import facts_of
from results.collect import collect
from shards import ShardSet, ShardUnion, read_card
from tests.cxrdist import findings
from tests.cxrdist.conftest import same, train
from tests.cxrdist.finetuning import trained
from tests.cxrdist.pretrain.test_data_parallel import go


@pytest.fixture(scope="session")
def other(tmp_path_factory) -> Path:
    """A second set of 32 pixels, by another name."""
    return findings.make(tmp_path_factory.mktemp("other"), name="other", seed=4)


def seen(run: Any) -> str:
    return run.read_done()["order_sha256"]


def test_several_sets_are_one_experiment_by_content_name_and_pixels(blobs, other, make_run):
    cards = [read_card(blobs), read_card(other)]
    run = make_run(shards=f"{blobs},{other}", steps=2)
    assert run.read_config()["shards"] == [str(blobs), str(other)]
    known = {facts["name"]: facts for facts in run.read_info()["datasets"].values()}
    assert set(known) == {cards[0].name, "other", f"{cards[0].name}+other"}
    assert known[f"{cards[0].name}+other"]["licence"] == f"those of {cards[0].name}, other, all of them"
    assert run.shard_hashes() == {str(blobs): cards[0].sha256, str(other): cards[1].sha256}
    assert (
        run.read_info()["signature"]
        == make_run("listed", shards=[str(blobs), str(other)], steps=2).read_info()["signature"]
    )
    for number, place in enumerate((str(blobs), [str(other), str(blobs)])):
        assert (
            make_run(f"another{number}", shards=place, steps=2).read_info()["signature"] != run.read_info()["signature"]
        )
    train(run, nproc=1)
    _, facts = load_encoder(run.path)
    name = f"{cards[0].name}+{cards[1].name}"
    content = hashlib.sha256(f"{cards[0].sha256}\n{cards[1].sha256}".encode()).hexdigest()
    assert (facts["dataset"], facts["shards_sha256"]) == (name, content)
    counts = [card.counts["train"]["n"] for card in cards]
    mean = np.average([card.mean for card in cards], weights=counts)
    squares = np.average([card.std**2 + card.mean**2 for card in cards], weights=counts)
    assert float(facts["mean"]) == pytest.approx(mean) and float(facts["std"]) == pytest.approx(
        math.sqrt(squares - mean**2)
    )
    start = describe(str(run.path))
    assert (start.name, start.dataset, start.dataset_hash) == (f"simclr:{name}", name, content)
    with pytest.raises(InputError, match="was trained on several shard sets; name one"):
        own_shards(run.path, None)


def test_results_have_the_union_as_a_pretraining_dataset_of_its_own(blobs, other, make_run, tmp_path):
    both, one = make_run("both", shards=f"{blobs},{other}", steps=2), make_run("one", steps=2)
    for number, run in enumerate((both, one)):
        train(run, nproc=1)
        probe: dict[str, Any] = {"mode": "linear", "arch": None, "image_size": None, "init": str(run.path)}
        trained(tmp_path / "trials" / str(number), other, **probe)
    table, _ = collect([tmp_path / "trials", both.path, one.path], tmp_path / "all.parquet")
    held = set(map(str, table["pretrain_dataset"].unique().to_pylist()))
    name = read_card(blobs).name
    assert {name, f"{name}+other"} <= held


def test_the_order_over_a_union_is_the_same_on_any_number_of_ranks_and_after_a_stop(blobs, other, make_run):
    changes: dict[str, Any] = {
        "shards": f"{blobs},{other}",
        "shard_weights": [1.0, 3.0],
        "global_batch": 12,
        "steps": 4,
    }
    alone, pair, stopped = (make_run(name, **changes) for name in ("alone", "pair", "stopped"))
    train(alone, nproc=1)
    go(pair, 2)
    assert seen(alone) == seen(pair)
    go(stopped, 2, 2)
    assert checkpoint.steps(stopped.checkpoints)[-1] == 2
    go(stopped, 2)
    assert same(stopped, pair)


def test_weights_change_the_batches_and_the_pixels(blobs, other, make_run):
    run = make_run(shards=f"{blobs},{other}", shard_weights=[1.0, 3.0])
    pool, order, augment = loop.open_data(loop.from_dict(loop.PretrainConfig, run.read_config()))
    drawn = np.concatenate([order.positions(step) for step in range(30)])
    assert 0.7 < float((drawn >= pool.train.sizes[0]).mean()) < 0.8  # pyright: ignore[reportAttributeAccessIssue]
    cards = [read_card(blobs), read_card(other)]
    assert augment.mean == pytest.approx(0.25 * cards[0].mean + 0.75 * cards[1].mean)
    assert facts_of(cards).sha256 == pool.facts.sha256, "which images are drawn more often is no other dataset"


def test_the_online_evaluation_compares_labels_that_all_sets_have_where_one_has_no_val(blobs, other):
    union = ShardUnion([ShardSet(blobs, "train"), ShardSet(other, "train")])
    val = ShardUnion([ShardSet(other, "val")])
    assert union.labels == ("pneumonia",) and len(val.labels) == 2
    config = loop.PretrainConfig(shards=f"{blobs},{other}", out="-")
    nothing: Any = None
    pool = Pool(union, val, facts_of([read_card(blobs), read_card(other)]))
    watch = OnlineEvaluation(config, pool, nothing, Ranks(), "float32", nothing)
    assert watch.val is not None
    expected = val.sets[0].labels_matrix(["pneumonia"])[watch.val.positions]
    assert np.array_equal(watch._labels(watch.val), expected)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"shards": "HERE,HERE"}, "names a set twice"),
        ({"shards": "HERE,COPY"}, "hold the same shard set"),
        ({"shards": " , "}, "names no shard set"),
        ({"shards": "HERE,nowhere"}, "nowhere"),
        ({"shards": "HERE", "shard_weights": [1.0]}, "one for each of several"),
        ({"shards": "HERE,OTHER", "shard_weights": [1.0]}, "one for each of several"),
        ({"shards": "HERE,OTHER", "shard_weights": [1.0, 0.0]}, "shard_weights"),
        ({"shards": "HERE,OTHER", "shard_weights": [1.0, 2.0], "window": 1}, "exclude each other"),
        ({"shards": "HERE,OTHER", "pool": {"keep": {"edema": 1.0}}}, "pool.keep names 'edema'"),
        ({"shards": "HERE,OTHER", "global_batch": 4096}, "global_batch is 4096"),
        ({"shards": "HERE,OTHER", "global_batch": 96, "shard_weights": [1.0, 99.0]}, "other has 90 .* gives 95 of"),
    ],
)  # fmt: skip
def test_sets_that_do_not_go_together_are_refused(blobs, other, make_run, tmp_path, changes, says):
    (tmp_path / "copy").symlink_to(blobs)
    shutil.copytree(blobs, tmp_path / "again")
    for word, place in (("HERE", blobs), ("OTHER", other), ("COPY", tmp_path / "again")):
        changes = {**changes, "shards": changes["shards"].replace(word, str(place))}
    with pytest.raises(ValueError, match=says) as caught:
        make_run(**changes)
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_a_folder_whose_name_has_a_comma_is_one_set(blobs, make_run, tmp_path):
    shutil.copytree(blobs, tmp_path / "a,b")
    run = make_run(shards=str(tmp_path / "a,b"))
    assert run.read_info()["signature"] == make_run("plain").read_info()["signature"]
    config = loop.from_dict(loop.PretrainConfig, run.read_config())
    assert loop.places_of(config) == [str(tmp_path / "a,b")]


def test_a_chain_checks_the_sets_that_are_there_already(blobs, tmp_path):
    config = loop.PretrainConfig(shards=f"{blobs},{tmp_path / 'later'}", out=str(tmp_path / "run"), global_batch=16)
    check_pretraining(config)
    with pytest.raises(InputError, match="pool.keep names"):
        check_pretraining(
            loop.from_dict(loop.PretrainConfig, {"shards": config.shards, "out": "x", "pool": {"keep": {"no": 1}}})
        )
