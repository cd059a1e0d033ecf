"""Published encoders are read with their publisher's pixels, and nothing is guessed."""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch

from cxrdist.core import published
from cxrdist.core.backbones import load_init
from cxrdist.core.initialisation import describe
from cxrdist.errors import InputError
from cxrdist.inference import network as networks
from tests.cxrdist.finetuning import trained, trial
from tests.cxrdist.publishers import IMAGENET_GREY, hugging_face, off, processor, vit, written


def test_rad_dino_and_its_like_bring_their_pixels_in_the_file_beside_them(tmp_path):
    theirs = vit("vit_tiny_patch16_224", 32)
    file = written(tmp_path / "model.safetensors", hugging_face(theirs.state_dict()))
    start = describe(str(file))
    assert (start.arch, start.image_size) == ("vit_tiny_patch16_224", 32)
    assert start.published is not None and start.published.grey is None, "names alone do not tell"
    processor(tmp_path, [0.5307] * 3, [0.2583] * 3)
    (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": 3, "image_size": 32}))
    found = published.recognise(
        {k: tuple(v.shape) for k, v in hugging_face(theirs.state_dict()).items()}, beside=tmp_path
    )
    assert found.grey == (0.5307, 0.2583) and "preprocessor_config.json" in str(found.source)
    moved = written(tmp_path / "again" / "model.safetensors", hugging_face(theirs.state_dict()))
    processor(moved.parent, [0.5307] * 3, [0.2583] * 3)
    assert off(moved, theirs, 32) < 1e-5
    (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": 12}))
    with pytest.raises(InputError, match=r"12 attention heads of a network 192 wide; vit_tiny_patch16_224 has 3"):
        published.recognise({k: tuple(v.shape) for k, v in hugging_face(theirs.state_dict()).items()}, beside=tmp_path)


def test_timms_own_configuration_names_a_network_whose_shapes_another_has_too(tmp_path):
    theirs = vit("vit_tiny_patch16_224", 32)
    file = written(tmp_path / "model.safetensors", theirs.state_dict())
    told = {"architecture": "deit_tiny_patch16_224", "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    (tmp_path / "config.json").write_text(json.dumps(told))
    start = describe(str(file))
    assert start.arch == "deit_tiny_patch16_224" and start.published is not None and start.published.arch_said
    assert start.published.grey == (0.5, 0.25)
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "ViT"}))  # of another program
    start = describe(str(file))
    assert start.arch == "vit_tiny_patch16_224" and start.published is not None and not start.published.arch_said


def test_weights_that_two_publishers_could_have_made_are_not_guessed(tmp_path, blobs):
    theirs = vit("vit_tiny_patch16_224", 32)
    state = {**theirs.state_dict(), "decoder_pred.weight": torch.ones(8, 8), "mask_token": torch.zeros(1, 1, 192)}
    file = written(tmp_path / "mae.pth", {"model": state, "args": argparse.Namespace(lr=1), "best": np.float64(0.5)})
    assert off(file, theirs, 32) < 1e-5
    with pytest.raises(
        InputError, match=r"--init_mean.* MAE \(0.449 and 0.226\) or Medical MAE \(0.5056 and 0.252\)"
    ) as e:
        trained(tmp_path / "run", blobs, init=str(file), mode="linear", arch=None, image_size=None)
    assert "\n" not in str(e.value)
    with pytest.raises(InputError, match="does not say what pixels"):
        networks.load(file, "cpu")
    own: dict[str, Any] = {"arch": "deit_tiny_patch16_224", "image_size": None, "init_mean": 0.5, "init_std": 0.25}
    config, _ = trial(tmp_path / "named", blobs, init=str(file), mode="linear", **own)
    assert (config.arch, config.image_size) == ("deit_tiny_patch16_224", 32), "other names may share the shapes"
    assert load_init(str(file), "deit_tiny_patch16_224", 32, own_pixels=True)[0](torch.rand(1, 1, 32, 32)).shape == (
        1,
        192,
    )


def test_a_published_encoder_is_probed_and_embedded_with_its_own_pixels(tmp_path, blobs, resnet):
    file = written(tmp_path / "torchvision.pth", resnet.state_dict())
    run = trained(tmp_path / "run", blobs, init=str(file), mode="linear", arch=None, image_size=32)
    held = run.read_info()["init"]
    assert held["recipe"] == "ImageNet classifier" and held["pixels"] == list(IMAGENET_GREY)
    own, published_one = networks.load(run.path, "cpu"), networks.load(file, "cpu")
    assert (own.mean, own.std, own.name) == (*IMAGENET_GREY, "resnet18")
    assert (published_one.mean, published_one.std, published_one.image_size) == (*IMAGENET_GREY, 224)
    other = trained(
        tmp_path / "other", blobs, init=str(file), mode="linear", arch=None, image_size=32, init_mean=0.2, init_std=0.1
    )
    assert networks.load(other.path, "cpu").mean == 0.2, "who knows better may say so"


def test_a_pretraining_from_weights_of_other_pixels_is_another_run(tmp_path, make_run):
    file = written(tmp_path / "hub" / "model.safetensors", hugging_face(vit("vit_tiny_patch16_224", 32).state_dict()))
    asked: dict[str, Any] = {"init": str(file), "arch": "vit_tiny_patch16_224", "image_size": 32, "steps": 1}
    processor(file.parent, [0.5], [0.5])
    first = make_run("first", **asked).read_info()["signature"]
    assert make_run("again", **asked).read_info()["signature"] == first
    processor(file.parent, [0.4], [0.5])
    assert make_run("other", **asked).read_info()["signature"] != first
    own = {"init_mean": 0.5, "init_std": 0.5}
    said = make_run("said", **asked, **own).read_info()["signature"]
    processor(file.parent, [0.3], [0.5])
    assert make_run("still", **asked, **own).read_info()["signature"] == said, "the pixels of the configuration count"


def test_pixels_said_beside_the_weights_may_not_change_under_a_run(tmp_path, blobs):
    from cxrdist.core.initialisation import refuse_another

    file = written(tmp_path / "hub" / "model.safetensors", hugging_face(vit("vit_tiny_patch16_224", 32).state_dict()))
    processor(file.parent, [0.5], [0.5])
    run = trained(tmp_path / "run", blobs, init=str(file), mode="linear", arch=None, image_size=None)
    processor(file.parent, [0.4], [0.5])
    with pytest.raises(InputError, match=r"other pixels than when .* was made: .*\[0.4, 0.5\], not \[0.5, 0.5\]"):
        refuse_another(run, str(file))


def test_real_imagenet_weights_bring_the_pixels_that_timm_says(shared_data, tmp_path):
    file = shared_data / "weights" / "tf_efficientnet_lite0_imagenet.safetensors"
    if not file.is_file():
        pytest.skip("real data: no weights/ there")
    start = describe(str(file))
    assert start.arch == "tf_efficientnet_lite0" and start.published is not None
    timms: Any = timm.get_pretrained_cfg(start.arch)
    assert start.published.grey == (0.5, 0.5) == tuple(timms.mean[:1] * 2)
    theirs = timm.create_model(start.arch, num_classes=0)
    theirs.load_state_dict(safetensors.torch.load_file(file), strict=False)
    backbone = load_init(str(file), start.arch, 64)[0].eval()
    x = torch.rand(2, 1, 64, 64)
    assert torch.allclose(backbone(x), theirs.eval()(x.repeat(1, 3, 1, 1)), atol=1e-4)


def test_every_row_of_the_table_says_where_it_is_from():
    for row in published.RECIPES:
        assert row.source and len(row.pixels[0]) == len(row.pixels[1]) in (1, 3)
        assert all(0 < value < 1 for part in row.pixels for value in part)
    assert len({row.name for row in published.RECIPES}) == len(published.RECIPES)
