"""What a thread writes is the state as it was, one piece after the other, and failures are told to the training."""

from __future__ import annotations

import threading

import pytest
import torch

from cxrdist.core.checkpoint_writer import CheckpointWriter, copied
from cxrdist.errors import FailedError


def test_a_copy_stays_what_it_was_while_the_original_goes_on():
    weight = torch.arange(6.0).view(2, 3).t()  # not contiguous: the layout belongs to the state
    state = {"model": {"w": weight}, "optimizer": [(weight[0], 3)], "progress": {"step": 1}}
    kept = copied(state)
    before = weight.clone()
    weight.zero_()
    state["progress"]["step"] = 2
    assert torch.equal(kept["model"]["w"], before) and kept["model"]["w"].stride() == weight.stride()
    assert torch.equal(kept["optimizer"][0][0], before[0]) and kept["optimizer"][0][1] == 3
    assert kept["progress"] == {"step": 1}


def test_one_piece_is_written_at_a_time_and_settle_waits_for_it():
    writer, go, done = CheckpointWriter(), threading.Event(), []

    def first() -> None:
        go.wait(20)
        done.append("first")

    writer.start(first)
    assert not done, "the caller goes on meanwhile"
    threading.Timer(0.05, go.set).start()
    writer.start(lambda: done.append("second"))
    assert done[0] == "first"
    writer.settle()
    assert done == ["first", "second"]


def test_a_failure_is_told_once_by_the_next_settle_or_start():
    def full() -> None:
        raise FailedError("No space left on device")

    writer, done = CheckpointWriter(), []
    writer.start(full)
    with pytest.raises(FailedError, match="No space left"):
        writer.start(lambda: done.append("lost"))
    writer.settle()
    assert not done
    writer.start(lambda: done.append("written"))
    writer.settle()
    assert done == ["written"]
