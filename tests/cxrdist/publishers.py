"""Files of weights as publishers write them, and how far our features of a picture are from theirs.

The names of transformers 5.24, EVA-X, DINO, DINOv2 and DINOv3 were compared once with files that their own programs
wrote; those of MoCo, MAE and solo-learn are only as in their source. test_key_layouts.py asks torchvision and
torchxrayvision themselves.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
from torch import nn

from cxrdist.core.backbones import load_init
from cxrdist.core.initialisation import describe

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
