"""Published encoders: recognised by their keys, read with their pixels, and nothing guessed.

A network of random weights is written by the names of its publisher; features of a picture must be the publisher's. The
names of transformers 5.24, EVA-X, DINO, DINOv2 and DINOv3 were compared once with files that their own programs wrote;
those of MoCo, MAE and solo-learn are only as in their source. torchvision and torchxrayvision are asked here.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from torch import nn

from cxrdist.core import published
from cxrdist.core.backbones import load_init
from cxrdist.core.initialisation import describe
from cxrdist.errors import InputError
from cxrdist.inference import network as networks
from tests.cxrdist.finetuning import trained, trial

State = dict[str, torch.Tensor]
IMAGENET_GREY = (0.449, 0.226)


def shaken(module: nn.Module) -> Any:
    """The module in evaluation mode with weights of which none is at its first value."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
        for name, buffer in module.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer += 0.3 * torch.rand_like(buffer)
    return module.eval()


def written(path: Path, state: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        safetensors.torch.save_file({name: value.contiguous() for name, value in state.items()}, path)
    else:
        torch.save(state, path)
    return path


@torch.no_grad()
def off(file: Path, theirs: Callable[[torch.Tensor], torch.Tensor], size: int, pixels: Any = None) -> float:
    """Largest difference of our features of a picture from the publisher's, relative to the largest feature.

    Args:
        file: the weights.
        theirs: normalised images (2, C, size, size) -> features.
        size: side of the picture.
        pixels: the publisher's mean and deviation of each channel; None: those of the recipe on average.
    """
    start = describe(str(file))
    assert start.published is not None and start.arch is not None
    grey = start.published.grey or IMAGENET_GREY
    picture = torch.rand(2, 1, size, size, generator=torch.Generator().manual_seed(1))
    channels = start.published.layout.channels or 1
    mean, std = pixels or ((grey[0],) * channels, (grey[1],) * channels)
    seen = (picture - torch.tensor(mean).view(1, -1, 1, 1)) / torch.tensor(std).view(1, -1, 1, 1)
    backbone = load_init(str(file), start.arch, size, own_pixels=start.published.grey is None)[0].eval()
    expected = theirs(seen)
    expected = expected.reshape(len(expected), -1)
    return float((backbone((picture - grey[0]) / grey[1]) - expected).abs().max() / expected.abs().max())


@pytest.fixture(scope="module")
def resnet() -> Any:
    from torchvision.models import resnet18

    return shaken(resnet18())


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


def hugging_face(state: State) -> State:
    """A timm ViT's state by the names in the files of transformers' ViT, Dinov2 and Dinov2WithRegisters."""
    out: State = {}
    dinov2 = "blocks.0.ls1.gamma" in state
    rules = (
        (r"patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
        (r"(cls_token|mask_token|register_tokens)$", r"embeddings.\1"),
        (r"pos_embed$", "embeddings.position_embeddings"),
        (r"blocks\.(\d+)\.norm1\.", r"encoder.layer.\1." + ("norm1." if dinov2 else "layernorm_before.")),
        (r"blocks\.(\d+)\.norm2\.", r"encoder.layer.\1." + ("norm2." if dinov2 else "layernorm_after.")),
        (r"blocks\.(\d+)\.attn\.proj\.", r"encoder.layer.\1.attention.output.dense."),
        (r"blocks\.(\d+)\.ls(\d)\.gamma", r"encoder.layer.\1.layer_scale\2.lambda1"),
        (r"blocks\.(\d+)\.mlp\.fc1\.", r"encoder.layer.\1." + ("mlp.fc1." if dinov2 else "intermediate.dense.")),
        (r"blocks\.(\d+)\.mlp\.fc2\.", r"encoder.layer.\1." + ("mlp.fc2." if dinov2 else "output.dense.")),
        (r"norm\.", "layernorm."),
    )  # fmt: skip
    for key, value in state.items():
        if found := re.fullmatch(r"blocks\.(\d+)\.attn\.qkv\.(weight|bias)", key):
            for part, piece in zip(("query", "key", "value"), value.chunk(3), strict=True):
                out[f"encoder.layer.{found[1]}.attention.attention.{part}.{found[2]}"] = piece
            continue
        pattern, name = next(rule for rule in rules if re.match(rule[0], key))
        out[re.sub(f"^{pattern}", name, key)] = value
    return out


def with_registers(model: Any) -> State:
    """The state of timm's DINOv2 with registers as Meta publishes it: a place for the class token, a mask token."""
    state = dict(model.state_dict())
    place = torch.randn(1, 1, model.num_features)
    state["pos_embed"] = torch.cat([place, state["pos_embed"]], 1)
    state["cls_token"] = state["cls_token"] - place
    state["register_tokens"] = state.pop("reg_token")
    return state | {"mask_token": torch.zeros(1, model.num_features)}


def vit(arch: str, size: int, **more: Any) -> Any:
    return shaken(timm.create_model(arch, num_classes=0, img_size=size, **more))


def processor(folder: Path, mean: list[float], std: list[float], **more: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"image_mean": mean, "image_std": std, "rescale_factor": 1 / 255, **more}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


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


def test_eva_x_is_read_by_its_published_names(tmp_path):
    theirs = vit("eva_x_tiny_patch16", 32)
    renames = {
        "mlp.fc1_g": "mlp.w1",
        "mlp.fc1_x": "mlp.w2",
        "mlp.fc2": "mlp.w3",
        "mlp.norm": "mlp.ffn_ln",
        "fc_norm.": "norm.",
    }
    state: State = {"mask_token": torch.zeros(1, 1, 192), "lm_head.weight": torch.ones(8, 192)}
    for key, value in theirs.state_dict().items():
        for ours, published_name in renames.items():
            key = key.replace(ours, published_name)
        state[key] = value
    file = written(tmp_path / "eva_x_tiny.pt", {"module": state})
    start = describe(str(file))
    assert (start.arch, start.image_size) == ("eva_x_tiny_patch16", 32)
    assert start.published is not None and start.published.grey == (0.49185243, 0.28509309)
    assert off(file, theirs, 32) < 1e-5


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
