"""BatchNorm's running statistics of a batch in parts are those of one update with the whole batch."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from cxrdist.core.distributed import Ranks
from cxrdist.pretrain.losses.nt_xent import nt_xent
from cxrdist.pretrain.step import Step
from cxrdist.pretrain.sync_norm import synchronise


def stepped(model: nn.Module, views: torch.Tensor, micro_batch: int | None) -> dict[str, torch.Tensor]:
    """The buffers of a copy of the model after one step."""
    own = copy.deepcopy(model).train()
    step = Step(own, torch.device("cpu"), "float32", nt_xent, micro_batch)
    half = len(views) // 2
    step(views[:half], views[half:])
    return {name: buffer.clone() for name, buffer in own.named_buffers()}


def network(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 6, 3, stride=2), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))


@pytest.fixture
def views() -> torch.Tensor:
    """24 pictures, sorted by brightness, so that parts differ as much as they can."""
    torch.manual_seed(0)
    return torch.randn(24, 1, 9, 9) + torch.linspace(-2, 5, 24)[:, None, None, None]


@pytest.mark.parametrize("micro_batch", [12, 7, 2])
@pytest.mark.parametrize("kind", ["plain", "global", "cumulative"])
def test_the_running_statistics_are_those_of_the_undivided_step(views, micro_batch, kind):
    torch.manual_seed(1)
    norm: Any = nn.BatchNorm2d(6, momentum=None if kind == "cumulative" else 0.1)
    norm.running_mean += 3
    norm.running_var *= 5
    norm.num_batches_tracked += 2
    model = network(norm)
    if kind == "global":
        model = synchronise(model, Ranks())
    whole, parts = stepped(model, views, None), stepped(model, views, micro_batch)
    assert whole["1.num_batches_tracked"] == parts["1.num_batches_tracked"] == 3
    for name, value in whole.items():
        assert torch.allclose(parts[name].double(), value.double(), rtol=1e-5, atol=1e-6), name


def test_deeper_layers_get_one_update_with_the_activations_of_all_parts(views):
    """Behind the first BatchNorm the parts' activations are not the whole batch's; their union still is the update."""
    torch.manual_seed(1)
    model: Any = network(nn.BatchNorm2d(6), nn.ReLU(), nn.BatchNorm2d(6))
    parts = stepped(model, views, 8)
    with torch.no_grad():
        inner = torch.cat([model[:3](part) for part in views.split(8)])
    expected = 0.1 * inner.mean((0, 2, 3))
    assert torch.allclose(parts["3.running_mean"], expected, atol=1e-6)
    assert torch.allclose(parts["3.running_var"], 0.9 + 0.1 * inner.transpose(0, 1).flatten(1).var(1), atol=1e-6)
    assert parts["3.num_batches_tracked"] == 1


def test_a_batch_that_the_parts_do_not_divide_is_cut_evenly(views):
    """15 of 16 views would leave one alone, which BatchNorm cannot normalise."""
    buffers = stepped(network(nn.BatchNorm2d(6)), views[:16], 15)
    assert buffers["1.num_batches_tracked"] == 1
