"""Backbones, their first layers and their files."""

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch

from cxrdist.core.backbones import build_backbone, fold_stem, load_encoder, load_init, save_encoder
from cxrdist.errors import FailedError, InputError
from tests.cxrdist.conftest import ROOT


@pytest.mark.parametrize(
    ("arch", "size"),
    [
        ("resnet10t", 28), ("resnet18", 28), ("resnet18", 64), ("resnet18", 96), ("resnet50", 64), ("densenet121", 32),
        ("densenet121", 64), ("convnext_atto", 64), ("vit_tiny_patch16_224", 64),
    ],
)  # fmt: skip
def test_backbones_turn_grey_images_into_vectors(arch, size):
    model = build_backbone(arch, size)
    assert model.eval()(torch.randn(2, 1, size, size)).shape == (2, model.num_features)


def test_small_images_get_a_small_stem_and_large_ones_the_standard_one():
    models: list[Any] = [build_backbone("resnet18", size) for size in (32, 64, 65)]
    tiny, small, large = models
    assert tiny.conv1.kernel_size == (3, 3) and tiny.conv1.stride == (1, 1)
    assert isinstance(tiny.maxpool, torch.nn.Identity)
    assert small.conv1.kernel_size == (3, 3) and small.conv1.stride == (2, 2)
    assert large.conv1.kernel_size == (7, 7)
    standard: Any = build_backbone("resnet18", 32, stem="standard")
    assert standard.conv1.kernel_size == (7, 7)


def test_a_folded_stem_sees_a_grey_picture_as_the_colour_stem_saw_it():
    torch.manual_seed(0)
    colour = timm.create_model("resnet10t", num_classes=0).eval()
    path_weights = colour.state_dict()
    model = build_backbone("resnet10t", 96)
    from cxrdist.core.backbones import load_weights

    load_weights(model, path_weights, "colour")
    x = torch.randn(2, 1, 96, 96)
    assert torch.allclose(model.eval()(x), colour(x.repeat(1, 3, 1, 1)), atol=1e-4)
    w = torch.randn(4, 3, 7, 7)
    assert torch.allclose(fold_stem(w), w.sum(1, keepdim=True), atol=1e-6)


@pytest.mark.parametrize(("arch", "size"), [("resnet10t", 28), ("vit_tiny_patch16_224", 64)])
def test_an_encoder_comes_back_as_it_was_saved(tmp_path, arch, size):
    model = build_backbone(arch, size)
    facts = {"arch": arch, "in_chans": 1, "image_size": size, "stem": "small" if size == 28 else "standard"}
    save_encoder(tmp_path / "encoder.safetensors", model, facts)
    loaded, metadata = load_encoder(tmp_path)
    assert metadata["arch"] == arch and metadata["image_size"] == str(size) and not loaded.training
    x = torch.randn(2, 1, size, size)
    assert torch.equal(loaded(x), model.eval()(x))
    again, found = load_init(str(tmp_path / "encoder.safetensors"), arch, size)
    assert found["init"] == "file" and torch.equal(again.eval()(x), loaded(x))


def test_a_small_encoder_keeps_its_strides_at_another_size(tmp_path):
    model = build_backbone("resnet10t", 28)
    save_encoder(tmp_path / "e.safetensors", model, {"arch": "resnet10t", "image_size": 28, "stem": "small"})
    other, metadata = load_init(str(tmp_path / "e.safetensors"), "resnet10t", 128)
    x = torch.randn(1, 1, 64, 64)
    assert metadata["stem"] == "small" and torch.equal(other.eval()(x), model.eval()(x))


def test_position_embeddings_are_resampled_to_another_size(tmp_path):
    big: Any = timm.create_model("vit_tiny_patch16_224", num_classes=10)
    torch.save(big.state_dict(), tmp_path / "vit.pth")
    model: Any = load_init(str(tmp_path / "vit.pth"), "vit_tiny_patch16_224", 64)[0]
    assert model.pos_embed.shape == (1, 17, 192)
    assert torch.equal(model.cls_token, big.cls_token)


@pytest.mark.parametrize("arch", ["deit3_small_patch16_224", "vit_small_patch14_reg4_dinov2"])
def test_places_of_networks_that_give_their_class_token_none_are_resampled(tmp_path, arch):
    side = 14 if "patch14" in arch else 16
    model: Any = build_backbone(arch, 2 * side)
    facts = {"arch": arch, "image_size": 2 * side, "stem": "standard"}
    save_encoder(tmp_path / "e.safetensors", model, facts)
    other: Any = load_init(str(tmp_path / "e.safetensors"), arch, 4 * side)[0]
    grid = model.pos_embed.view(1, 2, 2, -1).permute(0, 3, 1, 2)
    large = torch.nn.functional.interpolate(grid, (4, 4), mode="bicubic", antialias=True)
    assert torch.allclose(other.pos_embed, large.flatten(2).transpose(1, 2), atol=1e-6)


def test_the_documented_lines_load_an_encoder_in_plain_timm(tmp_path, monkeypatch):
    """The fenced block of docs/pretrain.md, run as it stands against a RUN with a resnet18 at 64 pixels."""
    text = (ROOT / "docs" / "pretrain.md").read_text()
    block = text.split("<!-- plain timm -->")[1].split("```python\n")[1].split("```")[0]
    assert "cxrdist" not in block
    model = build_backbone("resnet18", 64)
    save_encoder(tmp_path / "encoder.safetensors", model, {"arch": "resnet18", "image_size": 64, "stem": "small"})
    (tmp_path / "RUN").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    defined: dict[str, Any] = {}
    exec(block, defined)
    assert torch.equal(defined["model"].eval()(torch.ones(1, 1, 64, 64)), model.eval()(torch.ones(1, 1, 64, 64)))


class TestRefusals:
    """Each says what is wrong, where, and what to do."""

    @pytest.mark.parametrize(
        ("args", "match"),
        [
            (("scratch", "resnet19", 64), "near names.*resnet18"),
            (("scratch", "vit_tiny_patch16_224", 60), "multiple of 16"),
            (("nowhere.safetensors", "resnet18", 64), "does not exist"),
        ],
    )
    def test_of_names_and_sizes(self, args, match):
        with pytest.raises(InputError, match=match):
            load_init(*args)

    def test_of_files_that_are_no_encoders(self, tmp_path: Path):
        torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "w.pth")
        with pytest.raises(InputError, match="does not fit resnet34.*missing"):
            load_init(str(tmp_path / "w.pth"), "resnet34", 64)
        (tmp_path / "text.safetensors").write_text("hello")
        with pytest.raises(InputError, match="not a safetensors file"):
            load_encoder(tmp_path / "text.safetensors")
        safetensors.torch.save_file({"w": torch.ones(1)}, tmp_path / "other.safetensors")
        with pytest.raises(InputError, match="no arch and image_size"):
            load_encoder(tmp_path / "other.safetensors")
        with pytest.raises(InputError, match="holds no encoder.safetensors"):
            load_encoder(tmp_path)

    def test_of_another_architecture(self, tmp_path: Path):
        model = build_backbone("resnet10t", 28)
        save_encoder(tmp_path / "e.safetensors", model, {"arch": "resnet10t", "image_size": 28, "stem": "small"})
        with pytest.raises(InputError, match="holds a resnet10t, but --arch is resnet18"):
            load_init(str(tmp_path / "e.safetensors"), "resnet18", 28)

    def test_of_a_file_that_cannot_be_written(self, tmp_path: Path):
        with pytest.raises(FailedError, match="could not be written"):
            save_encoder(tmp_path / "absent" / "e.safetensors", build_backbone("resnet10t", 28), {})


def test_a_pickled_model_is_refused_without_the_advice_to_run_its_code(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pth")
    with pytest.raises(InputError) as refused:
        load_init(str(tmp_path / "whole.pth"), "resnet18", 64)
    said = str(refused.value)
    assert "holds Python objects" in said and "save the state dict alone" in said
    assert "weights_only" not in said and "add_safe_globals" not in said
    (tmp_path / "noise.pth").write_bytes(b"no weights at all")
    with pytest.raises(InputError, match="noise.pth is not a file of weights, or is damaged"):
        load_init(str(tmp_path / "noise.pth"), "resnet18", 64)
