"""The sample order is a pure function of seed, epoch and position."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.errors import InputError
from shards.read.order import Order, eval_slice, permutation, rank_slice

SIZES = st.lists(st.integers(0, 30), min_size=1, max_size=12).filter(lambda sizes: sum(sizes) > 0)


@st.composite
def orders(draw) -> Order:
    sizes = draw(SIZES)
    window = draw(st.none() | st.integers(1, 14))
    given_sizes = sizes if window or draw(st.booleans()) else None
    return Order(
        sum(sizes),
        seed=draw(st.integers(0, 2**40)),
        global_batch=draw(st.integers(1, 60)),
        shard_sizes=given_sizes,
        window=window,
    )


def again(order: Order) -> Order:
    """The same order in what could be another process: nothing remembered."""
    sizes = None if order.window is None else order._sizes
    return Order(order.n, seed=order.seed, global_batch=order.global_batch, shard_sizes=sizes, window=order.window)


@settings(max_examples=150, deadline=None)
@given(orders(), st.integers(1, 4))
def test_every_epoch_of_the_stream_holds_each_sample_exactly_once(order: Order, epochs: int) -> None:
    stream = np.concatenate([order.positions(step) for step in range(order.steps(epochs))])
    assert len(stream) - epochs * order.n < order.global_batch
    for epoch in range(epochs):
        part = stream[epoch * order.n : (epoch + 1) * order.n]
        assert np.array_equal(np.sort(part), np.arange(order.n))
        assert np.array_equal(part, order.epoch_order(epoch))


@settings(max_examples=150, deadline=None)
@given(orders(), st.lists(st.integers(0, 40), min_size=1, max_size=8))
def test_a_step_is_the_same_from_wherever_it_is_reached(order: Order, steps: list[int]) -> None:
    straight = again(order)
    expected = {step: straight.positions(step) for step in range(max(steps) + 1)}
    for step in steps:  # any order, with repeats, on an object that remembers other windows
        assert np.array_equal(order.positions(step), expected[step])
        assert np.array_equal(again(order).positions(step), expected[step])


@settings(max_examples=100, deadline=None)
@given(orders(), st.integers(1, 8), st.integers(1, 8), st.integers(0, 20))
def test_the_ranks_slices_make_up_the_same_global_batch_for_any_number_of_ranks(
    order: Order, world: int, local: int, step: int
) -> None:
    whole = Order(order.n, seed=order.seed, global_batch=world * local)
    batch = whole.positions(step)
    ranks = [again(whole).positions(step)[rank_slice(world * local, rank, world)] for rank in range(world)]
    assert {len(part) for part in ranks} == {local}
    assert np.array_equal(np.concatenate(ranks), batch)


@given(st.integers(0, 10_000), st.integers(1, 300))
def test_evaluation_visits_each_sample_exactly_once_on_any_number_of_ranks(n: int, world: int) -> None:
    parts = [np.arange(n)[eval_slice(n, rank, world)] for rank in range(world)]
    assert np.array_equal(np.concatenate(parts), np.arange(n))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


@settings(max_examples=100, deadline=None)
@given(SIZES, st.integers(1, 6), st.integers(0, 1000), st.integers(0, 3))
def test_a_window_of_shards_is_finished_before_the_next_one_begins(
    sizes: list[int], window: int, seed: int, epoch: int
) -> None:
    order = Order(sum(sizes), seed=seed, global_batch=7, shard_sizes=sizes, window=window)
    shard_of = np.repeat(np.arange(len(sizes)), sizes)
    seen = shard_of[order.epoch_order(epoch)]
    if window < len(sizes):
        shards, ends = order._layout(epoch)
        start = 0
        for block, end in enumerate(ends):
            assert set(seen[start:end]) <= set(shards[block * window : (block + 1) * window])
            start = end
        assert start == order.n and np.array_equal(np.sort(shards), np.arange(len(sizes)))


def test_a_window_as_large_as_the_set_changes_nothing() -> None:
    plain = Order(100, seed=3, global_batch=10)
    wide = Order(100, seed=3, global_batch=10, shard_sizes=[60, 40], window=2)
    assert np.array_equal(plain.epoch_order(5), wide.epoch_order(5))


def test_epochs_and_seeds_differ() -> None:
    orders_ = [Order(1000, seed=seed, global_batch=10).epoch_order(epoch) for seed in (0, 1) for epoch in (0, 1)]
    agree = [(a == b).mean() for i, a in enumerate(orders_) for b in orders_[:i]]
    assert max(agree) < 0.02


def test_the_shuffle_is_uniform() -> None:
    """Where each of 12 samples lands over 6000 epochs: chi-square (121 degrees of freedom) below its 1e-6 quantile."""
    n, epochs = 12, 6000
    counts = np.zeros((n, n))
    for epoch in range(epochs):
        counts[np.arange(n), permutation(n, 7, epoch, "test")] += 1
    chi2 = ((counts - epochs / n) ** 2 / (epochs / n)).sum()
    assert 50 < chi2 < 207


def test_the_order_is_pinned_for_good() -> None:
    """A change here would silently give every resumed run another order."""
    assert Order(10, seed=0, global_batch=5).epoch_order(0).tolist() == PINNED
    assert Order(10, seed=0, global_batch=5, shard_sizes=[4, 3, 3], window=2).epoch_order(1).tolist() == PINNED_WINDOW


PINNED = [4, 0, 6, 3, 7, 8, 9, 5, 1, 2]
PINNED_WINDOW = [6, 7, 4, 8, 9, 5, 1, 0, 2, 3]


def test_another_process_gives_the_same_order() -> None:
    code = "from shards.read.order import Order; print(Order(50, seed=9, global_batch=8).epoch_order(2).tolist())"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == str(Order(50, seed=9, global_batch=8).epoch_order(2).tolist())


def test_steps_round_up_so_that_no_sample_is_lost() -> None:
    assert Order(10, seed=0, global_batch=4).steps(1) == 3
    assert Order(10, seed=0, global_batch=4).steps(2) == 5
    assert Order(10, seed=0, global_batch=64).steps(1) == 1
    assert Order(1000, seed=0, global_batch=10).steps(0.1) == 10


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"n": 0, "global_batch": 4}, "empty"),
        ({"n": 4, "global_batch": 0}, "global_batch"),
        ({"n": 4, "global_batch": 2, "window": 1}, "shard_sizes"),
        ({"n": 4, "global_batch": 2, "window": 0, "shard_sizes": [4]}, "window"),
        ({"n": 4, "global_batch": 2, "window": 1, "shard_sizes": [3]}, "sum to 4"),
    ],
)
def test_an_order_that_cannot_be_is_refused(arguments: dict, word: str) -> None:
    with pytest.raises(InputError, match=word):
        Order(seed=0, **arguments)


def test_an_uneven_split_over_ranks_is_refused_with_the_nearest_even_ones() -> None:
    with pytest.raises(InputError, match="take 9 or 12"):
        rank_slice(10, 0, 3)
    with pytest.raises(InputError, match="take 3"):
        rank_slice(2, 0, 3)
    for rank in (-1, 3):
        with pytest.raises(InputError, match="rank"):
            rank_slice(9, rank, 3)
        with pytest.raises(InputError, match="rank"):
            eval_slice(9, rank, 3)
    with pytest.raises(InputError, match="0 or more"):
        Order(4, seed=0, global_batch=2).positions(-1)
