"""Several shard sets as one: samples, patients, labels, and an order that draws by weights."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from shards import InputError, Order, ShardSet, ShardUnion, WeightedOrder
from shards.read.loader import Loader
from tests.cxrdist import findings


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> list[ShardSet]:
    """Two sets; the second has another label besides, and its first label is not the first's."""
    folder = tmp_path_factory.mktemp("sets")
    places: list[Path] = [
        findings.make(folder, name="one", seed=1),
        findings.make(folder, name="two", seed=2, labels=("edema", "pneumonia", "effusion")),
    ]
    return [ShardSet(place, "train") for place in places]


def test_positions_of_a_union_are_those_of_its_sets_one_after_another(sets):
    union = ShardUnion([sets[0].select(sets[0].rows[:7]), sets[1]])
    assert len(union) == 7 + len(sets[1]) and union.sizes == [7, len(sets[1])]
    mixed = np.array([9, 3, 7, 6, 9, 0])
    expected = [sets[0 if p < 7 else 1].images(np.array([p if p < 7 else p - 7]))[0] for p in mixed]
    assert torch.equal(union.images(mixed), torch.stack(expected))
    assert torch.equal(union.images(np.array([2, 1])), sets[0].images(np.array([2, 1])))
    with pytest.raises(InputError, match="positions must be"):
        union.images(np.array([len(union)]))
    assert sum(union.shard_sizes) == len(union)


def test_labels_are_those_that_all_sets_have_and_patients_are_kept_apart(sets):
    union = ShardUnion(sets)
    assert set(union.labels) == {"pneumonia", "edema"}
    expected = [shards.labels_matrix(union.labels) for shards in sets]
    assert np.array_equal(union.labels_matrix(), np.concatenate(expected))
    counts = Counter(union.patients.tolist())
    assert len(union.patients) == len(union) and set(counts.values()) == {2}
    first = set(union.patients[: len(sets[0])].tolist())
    assert not first & set(union.patients[len(sets[0]) :].tolist()), "equal names of two sets are two patients"


def test_a_loader_reads_the_same_from_any_number_of_ranks(sets):
    union = ShardUnion(sets)
    order = Order(len(union), seed=3, global_batch=12)
    whole = [images for _, _, images in Loader(union, order, stop_step=3, workers=2)]
    for rank in range(3):
        part = [images for _, _, images in Loader(union, order, rank=rank, world=3, stop_step=3, workers=0)]
        assert all(torch.equal(a[rank * 4 : rank * 4 + 4], b) for a, b in zip(whole, part, strict=True))


@pytest.mark.parametrize(("sizes", "weights"), [([50, 20], [1, 1]), ([50, 20], [1, 9]), ([7, 11, 3], [0.5, 0.2, 3.0])])
def test_weights_decide_how_often_each_set_is_drawn_and_none_of_its_samples_is_favoured(sizes, weights):
    order = WeightedOrder(sizes, weights, seed=5, global_batch=8)
    n, ends = sum(sizes), np.cumsum(sizes)
    assert order.n == n and sum(order.shares) == n
    exact = n * np.array(weights) / sum(weights)
    assert np.abs(np.array(order.shares) - exact).max() < 1
    epochs = 8 * 6  # 8 n positions are a whole number of batches
    stream = np.concatenate([order.positions(step) for step in range(n * epochs // 8)]).reshape(epochs, n)
    for epoch in stream:
        assert np.bincount(np.searchsorted(ends, epoch, side="right"), minlength=len(sizes)).tolist() == order.shares
    drawn = np.bincount(stream.ravel(), minlength=n)
    for first, size in zip(ends - sizes, sizes, strict=True):
        held = drawn[first : first + size]
        assert held.max() - held.min() <= 1, "whole permutations, one after another"
    again = WeightedOrder(sizes, weights, seed=5, global_batch=8)
    for step in (40, 3, 17):  # a pure function of the step, whatever was asked before
        assert np.array_equal(again.positions(step), stream.ravel()[step * 8 : step * 8 + 8])
    other = WeightedOrder(sizes, weights, seed=6, global_batch=8)
    assert not np.array_equal(other.positions(0), order.positions(0))


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, -1.0], [1.0, float("nan")]])
def test_weights_that_cannot_be_are_refused(weights):
    with pytest.raises(InputError, match="weights above 0"):
        WeightedOrder([5, 5], weights, seed=0, global_batch=2)
    with pytest.raises(InputError, match="at least one shard set"):
        ShardUnion([])
