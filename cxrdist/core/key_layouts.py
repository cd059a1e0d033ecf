"""State dicts by the names and shapes of their tensors: whose prefix they carry, which network they are. Free of torch.

Every layout is brought to timm's names first; the network follows from the shapes. Query, key and value, which Hugging
Face keeps apart, are `attn.q`, `attn.k` and `attn.v` here and joined when the tensors are read.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

Shapes = Mapping[str, tuple[int, ...]]

PREFIXES = ("", "encoder_q.", "backbone.", "vit.", "dinov2.", "dinov2_with_registers.", "model.")
"""What stands before an encoder's own names: MoCo's; lightly's, solo-learn's and DINO's; Hugging Face's."""

_HUGGING_FACE = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.mask_token", "mask_token"),
    (r"embeddings\.register_tokens", "register_tokens"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.(?:projection\.)?(weight|bias)", r"patch_embed.proj.\1"),
    (r"(?:encoder\.)?layer\.(\d+)\.(?:norm1|layernorm_before)\.(.+)", r"blocks.\1.norm1.\2"),
    (r"(?:encoder\.)?layer\.(\d+)\.(?:norm2|layernorm_after)\.(.+)", r"blocks.\1.norm2.\2"),
    (r"encoder\.layer\.(\d+)\.attention\.attention\.query\.(.+)", r"blocks.\1.attn.q.\2"),
    (r"encoder\.layer\.(\d+)\.attention\.attention\.key\.(.+)", r"blocks.\1.attn.k.\2"),
    (r"encoder\.layer\.(\d+)\.attention\.attention\.value\.(.+)", r"blocks.\1.attn.v.\2"),
    (r"encoder\.layer\.(\d+)\.attention\.output\.dense\.(.+)", r"blocks.\1.attn.proj.\2"),
    (r"layer\.(\d+)\.attention\.(q|k|v)_proj\.(.+)", r"blocks.\1.attn.\2.\3"),
    (r"layer\.(\d+)\.attention\.o_proj\.(.+)", r"blocks.\1.attn.proj.\2"),
    (r"(?:encoder\.)?layer\.(\d+)\.layer_scale([12])\.lambda1", r"blocks.\1.ls\2.gamma"),
    (r"encoder\.layer\.(\d+)\.(?:mlp\.fc1|mlp\.weights_in|intermediate\.dense)\.(.+)", r"blocks.\1.mlp.fc1.\2"),
    (r"encoder\.layer\.(\d+)\.(?:mlp\.fc2|mlp\.weights_out|output\.dense)\.(.+)", r"blocks.\1.mlp.fc2.\2"),
    (r"layer\.(\d+)\.mlp\.up_proj\.(.+)", r"blocks.\1.mlp.fc1.\2"),
    (r"layer\.(\d+)\.mlp\.down_proj\.(.+)", r"blocks.\1.mlp.fc2.\2"),
    (r"(?:layernorm|norm)\.(weight|bias)", r"norm.\1"),
)
"""Names of ViT, Dinov2, Dinov2WithRegisters and DINOv3ViT in transformers 4 and 5 (files; in memory 5 has others)."""
_SEQUENTIAL = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
"""The children of torchvision's ResNet by number, as lightly's examples join them in an nn.Sequential."""

_VIT_SIZES = {
    (192, 12): "tiny", (384, 12): "small", (768, 12): "base", (1024, 24): "large", (1280, 32): "huge",
    (1536, 40): "giant",
}  # fmt: skip
_RESNETS: dict[tuple[bool, tuple[int, ...]], str] = {
    (False, (2, 2, 2, 2)): "resnet18", (False, (3, 4, 6, 3)): "resnet34", (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101", (True, (3, 8, 36, 3)): "resnet152",
}  # fmt: skip
_DENSENETS: dict[tuple[int, ...], str] = {
    (6, 12, 24, 16): "densenet121", (6, 12, 32, 32): "densenet169", (6, 12, 48, 32): "densenet201",
}  # fmt: skip
_EVA_X = {192: "eva_x_tiny_patch16", 384: "eva_x_small_patch16", 768: "eva_x_base_patch16"}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What names and shapes tell of a state dict."""

    prefix: str
    """One of `PREFIXES`, besides DataParallel's "module."."""
    kind: str
    """resnet, sequential (a ResNet by number), densenet, vit, huggingface, dinov3, eva_x, or other."""
    shapes: Shapes
    """By timm's names."""
    channels: int | None
    """Of the input."""
    arch: str | None
    """timm's name of the network; None where it is none of those known by their shapes."""
    image_size: int | None
    """Side in pixels that position embeddings were trained at; None where there are none."""

    @property
    def classes(self) -> int | None:
        """Outputs of the classifier; None where there is none."""
        for name in ("fc", "classifier", "head", "heads.head"):
            if f"{name}.weight" in self.shapes:
                return self.shapes[f"{name}.weight"][0]
        return None


def of(shapes: Shapes) -> Layout:
    """The layout of a state dict, by the names and shapes of its tensors."""
    bare = {name.removeprefix("module."): shape for name, shape in shapes.items()}
    for prefix in PREFIXES:
        inside = {name.removeprefix(prefix): shape for name, shape in bare.items() if name.startswith(prefix)}
        if kind := _kind(inside):
            named = {renamed(name, kind): shape for name, shape in inside.items()}
            return _layout(prefix, kind, named)
    return Layout(prefix="", kind="other", shapes=bare, channels=None, arch=None, image_size=None)


def own_name(name: str, layout: Layout) -> str | None:
    """The timm name of a tensor of the file; None for what is no part of the encoder."""
    bare = name.removeprefix("module.")
    return renamed(bare.removeprefix(layout.prefix), layout.kind) if bare.startswith(layout.prefix) else None


def renamed(name: str, kind: str) -> str:
    """A name without its prefix, as timm has it."""
    if kind == "sequential":
        first, _, rest = name.partition(".")
        return f"{_SEQUENTIAL.get(first, first)}.{rest}"
    if kind == "huggingface":
        for pattern, ours in _HUGGING_FACE:
            if found := re.fullmatch(pattern, name):
                return found.expand(ours)
        return name
    # DINOv2 trains blocks in chunks; other networks have numbers of two levels of their own.
    return re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", name) if kind in ("vit", "dinov3") else name


def _kind(shapes: Shapes) -> str | None:
    if "embeddings.cls_token" in shapes:
        return "huggingface"
    if "conv1.weight" in shapes and "layer1.0.conv1.weight" in shapes:
        return "resnet"
    if "0.weight" in shapes and "4.0.conv1.weight" in shapes:
        return "sequential"
    if "features.conv0.weight" in shapes:
        return "densenet"
    if "patch_embed.proj.weight" in shapes and "cls_token" in shapes:
        if "storage_tokens" in shapes:
            return "dinov3"
        eva = {"blocks.0.mlp.w1.weight", "blocks.0.mlp.fc1_g.weight", "blocks.0.attn.q_bias"} & set(shapes)
        return "eva_x" if eva else "vit"
    return None


def _layout(prefix: str, kind: str, shapes: Shapes) -> Layout:
    first = next(n for n in ("conv1.weight", "features.conv0.weight", "patch_embed.proj.weight") if n in shapes)
    size = None
    if kind in ("resnet", "sequential"):
        arch = _resnet(shapes)
    elif kind == "densenet":
        arch = _densenet(shapes)
    else:
        arch, size = _transformer(shapes, kind)
    return Layout(prefix=prefix, kind=kind, shapes=shapes, channels=shapes[first][1], arch=arch, image_size=size)


def _counted(shapes: Shapes, pattern: str) -> tuple[int, ...]:
    """How many blocks each stage has; the pattern's groups are the stage and the block."""
    blocks = {found.groups() for name in shapes if (found := re.match(pattern, name))}
    stages = Counter(int(stage) for stage, _ in blocks)
    return tuple(stages[stage] for stage in sorted(stages))


def _resnet(shapes: Shapes) -> str | None:
    deep = "layer1.0.conv3.weight" in shapes
    name = _RESNETS.get((deep, _counted(shapes, r"layer(\d+)\.(\d+)\.conv1\.")))
    extras = any(".se." in key or ".downsample.1.weight" in key and len(shape) == 4 for key, shape in shapes.items())
    width = shapes.get("layer1.0.conv2.weight", ())[:2]
    if name is None or extras:
        return None
    if width == (64, 64):
        return name
    wide: dict[tuple[str, tuple[int, ...]], str] = {
        ("resnet50", (128, 128)): "wide_resnet50_2",
        ("resnet101", (128, 128)): "wide_resnet101_2",
        ("resnet50", (128, 4)): "resnext50_32x4d",
    }
    return wide.get((name, width))


def _densenet(shapes: Shapes) -> str | None:
    if shapes["features.conv0.weight"][0] != 64:
        return None
    return _DENSENETS.get(_counted(shapes, r"features\.denseblock(\d+)\.denselayer(\d+)\."))


def _transformer(shapes: Shapes, kind: str) -> tuple[str | None, int | None]:
    width, _, side, _ = shapes["patch_embed.proj.weight"]
    depth = 1 + max((int(found[1]) for name in shapes if (found := re.match(r"blocks\.(\d+)\.", name))), default=-1)
    size = _VIT_SIZES.get((width, depth))
    places = shapes.get("pos_embed", (1, 0, width))[1] - 1
    pixels = math.isqrt(places) * side if places > 0 and math.isqrt(places) ** 2 == places else None
    if size is None:
        return None, pixels
    plain = shapes.get("blocks.0.mlp.fc1.weight", ())[:1] == (4 * width,)
    if "pos_embed" not in shapes:
        dinov3 = plain and side == 16 and size in ("tiny", "small", "base", "large")
        return (f"vit_{size}_patch16_dinov3_qkvb" if dinov3 else None), None
    if kind == "eva_x":
        return (_EVA_X.get(width) if side == 16 else None), pixels
    if "blocks.0.ls1.gamma" in shapes:
        registers = shapes.get("register_tokens", (1, 0))[1]
        known = side == 14 and registers in (0, 4) and size != "tiny" and (plain or size == "giant")
        return (f"vit_{size}_patch14{'_reg4' if registers else ''}_dinov2" if known else None), pixels
    known = plain and "norm.weight" in shapes and "register_tokens" not in shapes
    return (f"vit_{size}_patch{side}_224" if known and (size, side) in _PLAIN else None), pixels


_PLAIN = {
    ("tiny", 16), ("small", 8), ("small", 16), ("small", 32), ("base", 8), ("base", 16), ("base", 32), ("large", 14),
    ("large", 16), ("large", 32), ("huge", 14),
}  # fmt: skip
"""Sizes and patches of the plain ViTs that timm has."""
