"""Heads, class weights and the masked loss; the small network's size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from sklearn.utils.class_weight import compute_class_weight

from cxrdist.core.small_cnn import SmallCNN
from cxrdist.errors import InputError
from cxrdist.finetune.classifier import Classifier, build, layers, load, parameters, save, stages
from cxrdist.finetune.config import ClassifierHeadConfig, FinetuneConfig
from cxrdist.finetune.heads import build_head, class_weights, head_penalty, masked_bce


def test_small_cnn_has_the_published_number_of_parameters_within_three_percent():
    model = torch.nn.Sequential(SmallCNN(), build_head(ClassifierHeadConfig(), SmallCNN.num_features, 1))
    assert parameters(model) == 605_497
    assert abs(parameters(model) / 605_521 - 1) < 0.03
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 1)
    assert model(torch.zeros(2, 1, 64, 64)).shape == (2, 1)


@pytest.mark.parametrize("kind", ["linear", "mlp", "dense"])
def test_every_head_gives_one_logit_per_label(kind):
    config = ClassifierHeadConfig(kind=kind, hidden=7, layers=2)
    head = build_head(config, 5, 3)
    assert head(torch.randn(4, 5)).shape == (4, 3)
    penalty = head_penalty(config, head)
    assert (penalty is not None) == (kind == "dense")
    if penalty is not None:
        hidden = [m.weight for m in head.modules() if isinstance(m, torch.nn.Linear)][:-1]
        expected = config.l2 * sum(float((w.detach() ** 2).sum()) for w in hidden)
        assert penalty.item() == pytest.approx(expected, rel=1e-5)


def test_balanced_weights_are_those_of_scikit_learn_for_the_known_labels():
    rng = np.random.default_rng(0)
    y = (rng.random((200, 3)) < [0.1, 0.5, 0.9]).astype(np.float32)
    mask = rng.random((200, 3)) < 0.8
    positive, negative = class_weights(torch.from_numpy(y), torch.from_numpy(mask), "balanced", 1.0)
    for j in range(3):
        low, high = compute_class_weight("balanced", classes=np.array([0, 1]), y=y[mask[:, j], j].astype(int))
        assert (negative[j].item(), positive[j].item()) == pytest.approx((low, high), rel=1e-5)
    half, _ = class_weights(torch.from_numpy(y), torch.from_numpy(mask), "balanced", 0.5)
    assert torch.allclose(half, (1 + positive) / 2)
    none, _ = class_weights(torch.from_numpy(y), torch.from_numpy(mask), "balanced", 0.0)
    assert torch.equal(none, torch.ones(3))
    ratio, ones = class_weights(torch.from_numpy(y), torch.from_numpy(mask), "pos_weight", 1.0)
    known = [y[mask[:, j], j] for j in range(3)]
    assert ratio.tolist() == pytest.approx([(1 - k).sum() / k.sum() for k in known], rel=1e-5)
    assert torch.equal(ones, torch.ones(3))


def test_masked_labels_take_no_part_in_loss_and_gradient():
    torch.manual_seed(0)
    logits = torch.randn(6, 2, requires_grad=True)
    y = torch.tensor([[1, 0], [0, 1], [1, 1], [0, 0], [1, 0], [0, 1]]).float()
    mask = torch.tensor([[1, 1], [1, 0], [0, 1], [1, 1], [0, 0], [1, 0]]).bool()
    weights = (torch.tensor([2.0, 1.0]), torch.tensor([1.0, 0.5]))
    loss = masked_bce(logits, torch.where(mask, y, torch.nan), mask, weights)
    terms = []
    for i, j in mask.nonzero().tolist():
        weight = weights[0][j] if y[i, j] else weights[1][j]
        terms.append(weight * torch.nn.functional.binary_cross_entropy_with_logits(logits[i, j], y[i, j]))
    assert torch.allclose(loss, torch.stack(terms).mean())
    loss.backward()
    assert logits.grad is not None and torch.equal(logits.grad[~mask], torch.zeros(int((~mask).sum())))


def classifier(**changes) -> Classifier:
    config = FinetuneConfig(shards="-", out="-", image_size=32, **{"arch": "resnet10t", **changes})
    return build(config, ("pneumonia",), (0.5, 0.25))


def test_last_n_trains_the_last_stages_and_leaves_the_batch_norm_of_the_others_alone():
    model = classifier()
    trained = model.unfreeze(2)
    names = {name for name, p in model.backbone.named_parameters() if p.requires_grad}
    assert trained and {name.split(".")[0] for name in names} == {"layer3", "layer4"}
    model.train()
    before = {name: b.clone() for name, b in model.backbone.named_buffers()}
    model(torch.randn(4, 1, 32, 32))
    moved = {name.split(".")[0] for name, b in model.backbone.named_buffers() if not torch.equal(b, before[name])}
    assert moved == {"layer3", "layer4"}


def test_nothing_and_everything_can_be_trained():
    model = classifier()
    assert model.unfreeze(0) == [] and not model.train().backbone.training
    assert len(model.unfreeze(None)) == len(list(model.backbone.parameters()))
    assert model.train().backbone.training
    with pytest.raises(InputError, match="resnet10t has 5 stages"):
        model.unfreeze(6)


@pytest.mark.parametrize("arch", ["resnet10t", "densenet121", "convnext_atto", "vit_tiny_patch16_224", "small_cnn"])
def test_stages_hold_every_parameter_once(arch):
    model = classifier(arch=arch)
    listed = [name for stage in stages(model.backbone) for name in stage]
    assert sorted(listed) == sorted(name for name, _ in model.backbone.named_parameters())
    assert len(stages(model.backbone)) >= 4


FAMILIES = """
    resnet18 resnetv2_50 densenet121 convnext_atto convnextv2_atto swin_tiny_patch4_window7_224 vit_tiny_patch16_224
    beit_base_patch16_224 efficientnet_b0 mobilenetv3_small_100 regnety_002 vgg11_bn edgenext_xx_small davit_tiny
    hiera_tiny_224 tiny_vit_5m_224 xcit_nano_12_p16_224
""".split()


@pytest.mark.parametrize("arch", FAMILIES)
def test_the_last_stage_of_every_family_holds_more_than_a_hundredth_of_the_weights(arch):
    """Densenet, convnext, swin and others end with a normalisation that timm counts as a group of its own."""
    with torch.device("meta"):
        backbone = timm.create_model(arch, in_chans=1, num_classes=0)
    last = set(stages(backbone)[-1])
    sizes = {name: parameter.numel() for name, parameter in backbone.named_parameters()}
    assert sum(sizes[name] for name in last) > 0.01 * sum(sizes.values())


def test_the_trained_weights_are_counted_with_the_head():
    model = classifier(arch="densenet121")
    trained = model.trained(1)
    model.unfreeze(1)
    assert trained == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert 0.3 < trained / sum(p.numel() for p in model.parameters()) < 0.32
    assert model.trained(0) == 1025 and model.trained(None) == sum(p.numel() for p in model.parameters())


def test_an_architecture_without_stages_trains_whole_and_refuses_last_n():
    model = classifier(arch="poolformer_s12")
    assert len(model.unfreeze(None)) == len(list(model.backbone.parameters()))
    with pytest.raises(InputError, match="does not divide poolformer_s12 into stages"):
        model.unfreeze(1)


def test_last_layers_counts_convolutions_and_linear_layers_with_what_follows_them():
    model = classifier(arch="resnet18")
    model.unfreeze(3, True)
    trained = {name for name, p in model.backbone.named_parameters() if p.requires_grad}
    assert trained == {
        "layer4.0.downsample.0.weight", "layer4.0.downsample.1.weight", "layer4.0.downsample.1.bias",
        "layer4.1.conv1.weight", "layer4.1.bn1.weight", "layer4.1.bn1.bias",
        "layer4.1.conv2.weight", "layer4.1.bn2.weight", "layer4.1.bn2.bias",
    }  # fmt: skip
    assert len(layers(model.backbone)) == 20, "17 convolutions on the main path and 3 beside it"
    assert model.trained(3, True) == sum(p.numel() for p in model.parameters() if p.requires_grad)
    with pytest.raises(InputError, match="last_layers 21: resnet18 has 20 layers"):
        model.unfreeze(21, True)


@pytest.mark.parametrize(
    "arch", ["densenet121", "convnext_atto", "vit_tiny_patch16_224", "poolformer_s12", "small_cnn"]
)
def test_layers_hold_every_parameter_once_and_each_has_a_weight(arch):
    backbone = classifier(arch=arch).backbone
    shapes = {name: parameter.ndim for name, parameter in backbone.named_parameters()}
    found = layers(backbone)
    assert sorted(name for layer in found for name in layer) == sorted(shapes)
    assert all(any(shapes[name] > 1 for name in layer) for layer in found)


def test_dense_has_dropout_beside_its_penalty_only_where_it_is_asked_for():
    plain = build_head(ClassifierHeadConfig(kind="dense", hidden=50), 5, 1).train()
    assert all(m.p == 0 for m in plain.modules() if isinstance(m, torch.nn.Dropout))
    head = build_head(ClassifierHeadConfig(kind="dense", hidden=400, layers=2, dropout=0.5), 5, 1).train()
    hidden = torch.nn.Sequential(*list(head.children())[:2])(torch.ones(1, 5))
    assert 0.6 < float((hidden == 0).float().mean()) < 0.9, "half of what the ReLU leaves is dropped"
    assert set(head.state_dict()) == {f"{place}.{kind}" for place in (0, 2, 4) for kind in ("weight", "bias")}
    assert head.eval()(torch.ones(1, 5)).shape == (1, 1)


def test_a_small_cnn_without_batch_norm_is_saved_as_one(tmp_path: Path):
    model = classifier(arch="small_cnn", norm="none")
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
    assert parameters(model) == 605_497 - 448
    save(tmp_path / "model.safetensors", model)
    images = torch.randn(2, 1, 32, 32)
    assert torch.equal(load(tmp_path / "model.safetensors")(images), model.eval()(images))
