"""A step in parts, and a compiled one, give the gradient that the plain step gives, on each kind of device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from cxrdist.core.backbones import build_backbone
from cxrdist.core.device import resolve_precision
from cxrdist.pretrain.config import HeadConfig
from cxrdist.pretrain.losses.nt_xent import nt_xent
from cxrdist.pretrain.simclr import SimCLR
from cxrdist.pretrain.step import JointEmbedding, Step
from tests.cxrdist.conftest import TINY

CARD = pytest.param("cuda", marks=pytest.mark.gpu)
Found = tuple[float, torch.Tensor]


def views(device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Two views of 24 images (24, 1, 32, 32) each, the same on every device."""
    first, second = torch.randn(2, 24, 1, 32, 32, generator=torch.Generator().manual_seed(1)).to(device)
    return first, second


def model_of(arch: str, norm: bool, device: str) -> JointEmbedding:
    resolve_precision("float32", torch.device(device), 32)
    torch.manual_seed(0)
    backbone: Any = build_backbone(arch, 32)
    head = SimCLR(HeadConfig(dim=16, hidden=32, norm=norm), 0.2).head(backbone.num_features)
    return JointEmbedding(backbone, head).to(device).train()


def stepped(model: nn.Module, device: str, forward: Any = None, micro_batch: int | None = None) -> Found:
    """Loss and gradients (P,) of one step; `forward` is the model that runs, where it is not the model itself."""
    step = Step(model if forward is None else forward, torch.device(device), "float32", nt_xent, micro_batch)
    loss = step(*views(device))
    return float(loss), gradient(model)


def gradient(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.grad.flatten().cpu() for p in model.parameters() if p.grad is not None])


def check_near(found: Found, expected: Found, tolerance: float) -> None:
    assert found[0] == pytest.approx(expected[0], rel=tolerance)
    assert expected[1].norm() > 1e-3
    assert (found[1] - expected[1]).norm() < tolerance * expected[1].norm()


def in_one_pass(model: nn.Module, device: str, parts: int) -> Found:
    """As a step in parts, but every part's graph is kept until the one backward pass."""
    embeddings = torch.cat([model(part) for part in torch.cat(views(device)).tensor_split(parts)])
    first, second = embeddings.chunk(2)
    loss = nt_xent(first, second)
    loss.backward()
    return float(loss.detach()), gradient(model)


@pytest.mark.parametrize("device", ["cpu", CARD])
def test_the_second_pass_of_a_step_in_parts_drops_out_what_the_first_one_did(device: str):
    def dropping() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(1024, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 8)).to(device)

    one, other = dropping(), dropping()
    torch.manual_seed(5)
    expected = in_one_pass(one, device, 5)
    torch.manual_seed(5)
    check_near(stepped(other, device, micro_batch=10), expected, 1e-5)


@pytest.mark.gpu
def test_a_batch_in_parts_gives_the_gradient_of_the_whole_on_a_card():
    whole, parts = (model_of("test_convnext", False, "cuda") for _ in range(2))
    check_near(stepped(parts, "cuda", micro_batch=10), stepped(whole, "cuda"), 1e-4)


@pytest.mark.filterwarnings("default")  # the compiler remarks on what a card could do besides, such as TF32
@pytest.mark.parametrize("device", [CARD])
def test_a_compiled_step_gives_the_gradient_of_the_eager_one(device: str):
    compile_: Callable[[nn.Module], Any] = torch.compile
    eager, compiled = (model_of(TINY, True, device) for _ in range(2))
    check_near(stepped(compiled, device, compile_(compiled)), stepped(eager, device), 1e-3)
    assert all(
        torch.allclose(a, b, rtol=1e-3, atol=1e-4)
        for a, b in zip(eager.buffers(), compiled.buffers(), strict=True)
        if a.is_floating_point()
    )
