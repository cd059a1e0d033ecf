"""Class activation maps are what their papers say, and occlusion shows what the model reads."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cxrdist.errors import InputError
from cxrdist.finetune import classifier
from cxrdist.finetune.classifier import Classifier
from cxrdist.finetune.config import FinetuneConfig
from cxrdist.inference import heatmaps
from cxrdist.inference import network as networks


def test_grad_cam_of_the_last_maps_under_a_linear_head_is_the_class_activation_map(network: networks.Encoder) -> None:
    """Selvaraju et al. 2017, section 3: with average pooling and a linear head they are the same up to 1/(hw)."""
    assert network.classifier is not None
    model = copy.deepcopy(network.classifier)
    linear = next(part for part in model.head.modules() if isinstance(part, nn.Linear))
    with torch.no_grad():  # features of a ResNet are 0 and above: label 1 is spoken for, label 0 is not
        linear.weight[1] = torch.rand(linear.in_features, generator=torch.Generator().manual_seed(1))
        linear.weight[0] = -linear.weight[1]
    maps: list[torch.Tensor] = []
    hook = model.backbone.get_submodule("layer4").register_forward_hook(lambda *call: maps.append(call[2].detach()))
    pixels = torch.randn(2, 1, 96, 96, generator=torch.Generator().manual_seed(0))
    heat = heatmaps.grad_cam(model, pixels.clone(), 1, "layer4")
    assert heatmaps.grad_cam(model, pixels.clone(), 0, "layer4").max() == 0
    hook.remove()
    cells = maps[0].shape[2] * maps[0].shape[3]
    assert cells > 1
    cam = torch.relu(torch.einsum("bchw,c->bhw", maps[0], linear.weight[1].detach() / cells))
    grown = nn.functional.interpolate(cam[:, None], size=(96, 96), mode="bilinear", align_corners=False)[:, 0].numpy()
    assert grown.max(axis=(1, 2)).min() > 0
    np.testing.assert_allclose(heat, grown, rtol=1e-4, atol=1e-4 * grown.max())


def test_grad_cam_takes_the_deepest_maps_that_still_show_something(network: networks.Encoder) -> None:
    model = network.classifier
    assert model is not None
    layer = heatmaps.pick_layer(model)
    pixels = torch.zeros(1, 1, 48, 48)
    sizes: list[Any] = []
    hook = model.backbone.get_submodule(layer).register_forward_hook(lambda *call: sizes.append(call[2].shape[2]))
    model(pixels)
    hook.remove()
    assert sizes[0] >= heatmaps.MIN_CELLS
    assert heatmaps.pick_layer(model, "layer1") == "layer1"
    with pytest.raises(InputError, match="no such feature map"):
        heatmaps.pick_layer(model, "layer9")


@pytest.mark.parametrize(("size", "cells"), [(28, 4), (64, 4), (128, 8), (224, 14)])
def test_maps_come_from_the_layer_whose_maps_pointed_best_at_each_size(size: int, cells: int) -> None:
    config = FinetuneConfig(shards="x", out="y", arch="resnet18", image_size=size, stem="standard")
    model = classifier.build(config, ("mass",), (0.5, 0.25)).eval()
    sides = heatmaps.feature_maps(model)
    assert sides[heatmaps.pick_layer(model)] == cells


@pytest.mark.parametrize(
    ("arch", "layer", "beside_a_shortcut"),
    [("resnet26", "layer3", "layer4.0.act1"), ("regnetx_002", "s3", "s4.b1.conv1"), ("mobilenetv2_050", "", "")],
)
def test_no_path_of_the_network_goes_around_the_layer_that_maps_come_from(
    arch: str, layer: str, beside_a_shortcut: str
) -> None:
    config = FinetuneConfig(shards="x", out="y", arch=arch, image_size=64, stem="standard")
    model = classifier.build(config, ("mass",), (0.5, 0.25)).eval()
    chosen = heatmaps.pick_layer(model)
    assert chosen == (layer or chosen) and heatmaps.carries_all(model, chosen)
    if beside_a_shortcut:
        sides = heatmaps.feature_maps(model)
        assert sides[beside_a_shortcut] == sides[layer] and not heatmaps.carries_all(model, beside_a_shortcut)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    hook = model.backbone.get_submodule(chosen).register_forward_hook(lambda *call: torch.zeros_like(call[2]))
    with torch.no_grad():
        blind = model(torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0)))
    hook.remove()
    assert torch.equal(blind[0], blind[1]), "with that layer's output gone, two images look the same"
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_vision_transformers_tokens_make_a_map_without_the_class_token() -> None:
    config = FinetuneConfig(shards="x", out="y", arch="vit_tiny_patch16_224", image_size=64)
    model = classifier.build(config, ("mass",), (0.5, 0.25)).eval()
    layer = heatmaps.pick_layer(model)
    assert layer == "blocks.11.norm1"
    pixels = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    maps = heatmaps.class_maps(model, pixels, [0], layer, "hirescam")
    assert maps.shape == (1, 2, 4, 4)
    tokens: list[torch.Tensor] = []
    hook = model.backbone.get_submodule(layer).register_forward_hook(lambda *call: tokens.append(call[2]))
    logits = model(pixels)
    hook.remove()
    (slope,) = torch.autograd.grad(logits.sum(), tokens[0])
    direct = torch.relu((slope * tokens[0]).sum(2)[:, 1:]).reshape(2, 4, 4).detach().numpy()
    np.testing.assert_allclose(maps[0], direct, rtol=1e-4, atol=1e-7)
    assert direct.max() > 0


def test_a_network_without_maps_is_referred_to_occlusion() -> None:
    model = Classifier(_Corner(), nn.Linear(2, 1), {"image_size": 32, "labels": ["a"], "arch": "corner"}).eval()
    model.backbone.norm = nn.Identity()
    with pytest.raises(InputError, match="corner has no feature maps for Grad-CAM; use --method occlusion"):
        heatmaps.pick_layer(model)


def test_the_kinds_of_maps_are_what_their_papers_say() -> None:
    draw = torch.Generator().manual_seed(0)
    maps, slope = torch.rand(2, 5, 3, 3, generator=draw), torch.randn(2, 5, 3, 3, generator=draw)
    numbers, slopes = maps.numpy(), slope.numpy()
    found = {name: make(maps, slope).numpy() for name, make in heatmaps.CAMS.items()}
    weights = slopes.mean(axis=(2, 3))
    np.testing.assert_allclose(
        found["gradcam"], np.maximum(np.einsum("bc,bchw->bhw", weights, numbers), 0), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(found["hirescam"], np.maximum((slopes * numbers).sum(1), 0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        found["layercam"], np.maximum((np.maximum(slopes, 0) * numbers).sum(1), 0), rtol=1e-4, atol=1e-6
    )
    # Where one pattern explains everything, its strength in each cell is the first component.
    strength = torch.rand(1, 1, 4, 4, generator=draw)
    single = strength * torch.rand(1, 6, 1, 1, generator=draw)
    eigen = heatmaps.CAMS["eigencam"](single, single)[0].numpy().ravel()
    above = np.maximum((strength - strength.mean()).numpy().ravel(), 0)
    np.testing.assert_allclose(eigen / eigen.max(), above / above.max(), atol=1e-4)


def test_random_weights_are_others_and_leave_the_run_as_it_is(network: networks.Encoder) -> None:
    assert network.classifier is not None
    before = copy.deepcopy(network.classifier.state_dict())
    fresh = heatmaps.untrained(network.classifier)
    same = {
        name for name, value in fresh.state_dict().items() if torch.equal(value, before[name]) and value.numel() > 1
    }
    assert not {name for name in same if name.endswith("weight") and before[name].ndim > 1}
    assert all(torch.equal(value, network.classifier.state_dict()[name]) for name, value in before.items())


class _Corner(nn.Module):
    """Two features: the sum of the pixels of the upper left and of the lower right 8 x 8."""

    num_features = 2

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.stack([images[:, 0, :8, :8].sum((1, 2)), images[:, 0, -8:, -8:].sum((1, 2))], dim=1)


def test_occlusion_lights_up_what_the_model_reads_and_nothing_else() -> None:
    head = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.eye(2))
    model = Classifier(_Corner(), head, {"image_size": 32, "labels": ["a", "b"], "arch": "corner"}).eval()
    heat = heatmaps.occlusion(model, torch.ones(1, 1, 32, 32), [0, 1], patch=4)
    assert heat[0, :8, :8].min() > 0 and heat[1, -8:, -8:].min() > 0
    assert heat[0, 12:, :].max() == 0 and heat[0, :, 12:].max() == 0
    assert heat[1, :20, :].max() == 0
    assert heat[0, 3, 3] == pytest.approx(16)  # a patch of 4 x 4 ones that lies wholly inside
    with pytest.raises(InputError, match="patch 40"):
        heatmaps.occlusion(model, torch.ones(1, 1, 32, 32), [0], patch=40)
