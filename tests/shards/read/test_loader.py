"""What a step yields depends on the step alone: not on workers, ranks, or where the run was resumed."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shards import InputError, Order, ShardSet
from shards.read.loader import Loader


@pytest.fixture(scope="module")
def train(small_set) -> ShardSet:
    return ShardSet(small_set[0], "train", size=8)


@pytest.fixture(scope="module")
def pixels(train: ShardSet) -> torch.Tensor:
    return train.images(np.arange(len(train)))


@settings(max_examples=60, deadline=None)
@given(
    world=st.integers(1, 4),
    local=st.integers(1, 20),
    workers=st.integers(0, 3),
    prefetch=st.integers(1, 4),
    start=st.integers(0, 10),
    window=st.none() | st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_any_ranks_workers_and_resume_step_give_the_same_global_batches(
    train: ShardSet,
    pixels: torch.Tensor,
    world: int,
    local: int,
    workers: int,
    prefetch: int,
    start: int,
    window: int | None,
    seed: int,
) -> None:
    order = Order(len(train), seed=seed, global_batch=world * local, shard_sizes=train.shard_sizes, window=window)
    stop = start + 3
    loaders = [
        Loader(
            train, order, rank=rank, world=world, start_step=start, stop_step=stop, workers=workers, prefetch=prefetch
        )
        for rank in range(world)
    ]
    for expected_step, batches in zip(range(start, stop), zip(*loaders, strict=True), strict=True):
        assert [step for step, _, _ in batches] == [expected_step] * world
        positions = order.positions(expected_step)
        assert all(np.array_equal(found, positions) for _, found, _ in batches)
        images = torch.cat([images for _, _, images in batches])
        assert torch.equal(images, pixels[torch.from_numpy(positions)])


def test_one_epoch_over_two_ranks_shows_every_sample(train: ShardSet) -> None:
    order = Order(len(train), seed=1, global_batch=6)
    seen = [positions for _, positions, _ in Loader(train, order, rank=1, world=2, stop_step=order.steps(1))]
    assert set(np.concatenate(seen)) == set(range(len(train)))


def test_leaving_early_stops_the_threads(train: ShardSet) -> None:
    order = Order(len(train), seed=1, global_batch=4)
    iterator = iter(Loader(train, order, stop_step=10_000, workers=3))
    next(iterator)
    assert sum(thread.name.startswith("shards") for thread in threading.enumerate()) >= 1
    iterator.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("shards")]


def test_no_more_batches_are_decoded_ahead_than_asked(train: ShardSet, monkeypatch) -> None:
    order = Order(len(train), seed=1, global_batch=4)
    asked: list[int] = []
    real = order.positions
    monkeypatch.setattr(order, "positions", lambda step: asked.append(step) or real(step))
    iterator = iter(Loader(train, order, stop_step=10_000, workers=2, prefetch=3))
    for _ in range(5):
        next(iterator)
    iterator.close()  # type: ignore[attr-defined]
    assert asked == list(range(5 + 3))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_stops_the_iteration_with_its_name(make_set, tmp_path: Path, workers: int) -> None:
    make_set(tmp_path / "set", splits={"train": 20})
    shardset = ShardSet(tmp_path / "set", "train")
    tar = tmp_path / "set" / "train-000001.tar"
    tar.write_bytes(tar.read_bytes()[:600])
    order = Order(20, seed=0, global_batch=5)
    with pytest.raises(InputError, match="train-000001.tar: sample train_0001"):
        list(Loader(shardset, order, stop_step=4, workers=workers))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("shards")]


def test_waiting_is_counted(train: ShardSet) -> None:
    order = Order(len(train), seed=1, global_batch=4)
    for workers in (0, 1):
        loader = Loader(train, order, stop_step=5, workers=workers)
        list(loader)
        assert loader.wait_seconds > 0
        assert len(loader) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": Order(36, seed=0, global_batch=4)}, "36 samples, the shard set has 37"),
        ({"world": 3}, "does not split evenly over 3 ranks"),
        ({"workers": -1}, "workers -1"),
        ({"prefetch": 0}, "prefetch 0"),
        ({"start_step": -1}, "start_step -1"),
    ],
)
def test_a_loader_that_cannot_be_is_refused(train: ShardSet, options: dict, message: str) -> None:
    arguments = {"order": Order(37, seed=0, global_batch=4), "stop_step": 1} | options
    with pytest.raises(InputError, match=message):
        Loader(train, **arguments)


@pytest.mark.gpu
def test_pinned_batches_hold_the_same_pixels(train: ShardSet, pixels: torch.Tensor) -> None:
    order = Order(len(train), seed=1, global_batch=8)
    for step, positions, images in Loader(train, order, stop_step=9, workers=2, pin=True):
        assert images.is_pinned()
        assert torch.equal(images.cuda(non_blocking=True).cpu(), pixels[torch.from_numpy(order.positions(step))])
        assert len(positions) == 8
