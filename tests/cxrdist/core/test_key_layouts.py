"""Published encoders are recognised by their keys.

A network of random weights is written by the names of its publisher; features of a picture must be the publisher's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import nn

from cxrdist.core import published
from cxrdist.core.backbones import load_init
from cxrdist.core.initialisation import describe
from cxrdist.errors import InputError
from tests.cxrdist.publishers import (
    IMAGENET_GREY,
    State,
    hugging_face,
    off,
    processor,
    shaken,
    vit,
    with_registers,
    written,
)


def features_of(resnet: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    return nn.Sequential(*list(resnet.children())[:-1])


def named(resnet: Any, before: str, sequential: bool = False) -> State:
    """The state of a ResNet without its classifier, under a prefix."""
    module = nn.Sequential(*list(resnet.children())[:-1]) if sequential else resnet
    return {f"{before}{k}": v for k, v in module.state_dict().items() if not k.startswith("fc.")}


RESNETS: dict[str, tuple[Callable[[Any], Any], str | None]] = {
    "torchvision.pth": (lambda r: r.state_dict(), "ImageNet classifier"),
    "parallel.pth": (lambda r: {f"module.{k}": v for k, v in r.state_dict().items()}, "ImageNet classifier"),
    "lightly.ckpt": (
        lambda r: {"epoch": 3, "state_dict": named(r, "backbone.", True) | {"projection_head.0.weight": torch.ones(2)}},
        "lightly",
    ),
    "solo.ckpt": (lambda r: {"state_dict": named(r, "backbone.") | named(r, "momentum_backbone.")}, "solo-learn"),
    "dino.pth": (lambda r: {"student": named(r, "module."), "teacher": named(r, "backbone.")}, "DINO"),
    "moco.pth": (
        lambda r: {"arch": "resnet18", "state_dict": named(r, "module.encoder_q.") | named(r, "module.encoder_k.")},
        None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RESNETS)
def test_a_resnet_is_read_under_any_publishers_prefix(resnet, tmp_path, name):
    state, recipe = RESNETS[name]
    file = written(tmp_path / name, state(resnet))
    start = describe(str(file))
    assert start.arch == "resnet18" and start.published is not None and start.published.recipe == recipe
    assert start.published.grey == (IMAGENET_GREY if recipe else None)
    assert off(file, features_of(resnet), 64) < 1e-5


def test_torchxrayvisions_densenet_gives_its_own_features(tmp_path):
    from torchxrayvision.models import DenseNet

    theirs = shaken(DenseNet())
    file = written(tmp_path / "xrv.pth", theirs.state_dict())
    start = describe(str(file))
    assert (start.arch, start.image_size) == ("densenet121", 224)
    assert start.published is not None and start.published.grey == (0.5, 1 / 2048), "[0, 1] becomes [-1024, 1024]"
    assert off(file, theirs.features2, 64) < 1e-5
    torch.save(theirs, tmp_path / "model.pt")  # as the project publishes it: an object, which only code can open
    with pytest.raises(
        InputError, match=r"model.pt holds Python objects \(torchxrayvision.models.DenseNet\) beside weights"
    ) as caught:
        describe(str(tmp_path / "model.pt"))
    assert "\n" not in str(caught.value)


def test_vit_huge_has_sixteen_heads(tmp_path):
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.cls_token": (1, 1, 1280),
        "embeddings.position_embeddings": (1, 257, 1280),
        "embeddings.patch_embeddings.projection.weight": (1280, 3, 14, 14),
        "layernorm.weight": (1280,),
        **{f"encoder.layer.{block}.intermediate.dense.weight": (5120, 1280) for block in range(32)},
    }
    processor(tmp_path, [0.5], [0.5], num_attention_heads=16)
    found = published.recognise(shapes, beside=tmp_path)
    assert (found.arch, found.image_size) == ("vit_huge_patch14_224", 224)
    known: Any = timm.create_model("vit_huge_patch14_224", depth=1)
    assert known.blocks[0].attn.num_heads == 16
    processor(tmp_path, [0.5], [0.5], num_attention_heads=20)
    with pytest.raises(InputError, match="20 attention heads of a network 1280 wide; vit_huge_patch14_224 has 16"):
        published.recognise(shapes, beside=tmp_path)


@pytest.mark.parametrize("names", ["meta", "teacher", "huggingface"])
def test_register_tokens_are_read_and_three_colours_folded_exactly(tmp_path, names):
    theirs = vit("vit_small_patch14_reg4_dinov2", 28)
    state = with_registers(theirs)
    if names == "huggingface":
        file = written(tmp_path / "model.safetensors", hugging_face(state))
        processor(tmp_path, list(published.IMAGENET[0]), list(published.IMAGENET[1]))
    elif names == "teacher":  # training checkpoints keep blocks in chunks
        chunked = {
            re.sub(r"^blocks\.(\d+)\.", lambda m: f"blocks.{int(m[1]) // 3}.{m[1]}.", k): v for k, v in state.items()
        }
        file = written(tmp_path / "t.pth", {"teacher": {f"backbone.{k}": v for k, v in chunked.items()}})
    else:
        file = written(tmp_path / "dinov2_vits14_reg4_pretrain.pth", state)
    start = describe(str(file))
    assert (start.arch, start.image_size) == ("vit_small_patch14_reg4_dinov2", 28)
    assert start.arch and start.published is not None and start.published.grey == IMAGENET_GREY
    assert off(file, theirs, 28, published.IMAGENET) < 1e-5, "each colour as its publisher normalises it"
    if names == "meta":
        assert load_init(str(file), start.arch, 56)[0](torch.rand(1, 1, 56, 56)).shape == (1, 384)
