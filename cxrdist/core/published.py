"""Published encoders: whose state dict a file holds, and what pixels its network expects. Free of torch.

`RECIPES` is the table: a row a publisher, with the program or page that its numbers come from. Where rows of the same
names and shapes differ in their pixels (MoCo and MoCo-CXR, say), nothing is guessed: the error names both.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cxrdist.core import key_layouts
from cxrdist.core.key_layouts import Layout, Shapes
from cxrdist.errors import InputError

Colours = tuple[float, ...]
"""A number for each channel, or one for all."""

IMAGENET: tuple[Colours, Colours] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A row of the table."""

    name: str
    """As messages and results call it."""
    of: Callable[[Layout, str], bool]
    """Whether a layout, and the name of the dict it stood in (teacher, model ...), can be this publisher's."""
    pixels: tuple[Colours, Colours]
    """Mean and deviation, of values in [0, 1], that images were normalised with; the channels of a grey image are
    equal, and first layers for three channels are folded to one."""
    image_size: int | None = None
    """Side in pixels, where the weights do not tell."""
    source: str
    """Where pixels and names are from."""


RECIPES = (
    Recipe(
        name="torchxrayvision",
        of=lambda found, _: found.arch == "densenet121" and found.channels == 1 and found.classes == 18,
        pixels=((0.5,), (1 / 2048,)),  # (2 x - 1) 1024, so that [0, 1] becomes [-1024, 1024]
        image_size=224,
        source="torchxrayvision: datasets.normalize, models.DenseNet (densenet121-res224-*)",
    ),
    Recipe(
        name="EVA-X",
        of=lambda found, _: found.kind == "eva_x" and found.channels == 3,
        pixels=((0.49185243,) * 3, (0.28509309,) * 3),
        source="github.com/hustvl/EVA-X: eva_x.py, classification/utils/datasets.py",
    ),
    Recipe(
        name="ImageNet classifier",
        of=lambda found, _: found.kind in ("resnet", "densenet") and found.classes == 1000 and found.channels == 3,
        pixels=IMAGENET,
        image_size=224,
        source="torchvision: models.ResNet50_Weights and its like; timm: models/resnet.py, models/densenet.py",
    ),
    Recipe(
        name="EfficientNet-Lite",
        of=lambda found, _: (found.arch or "").startswith("tf_efficientnet_lite") and found.classes == 1000,
        pixels=((0.5,) * 3, (0.5,) * 3),
        source="timm: models/efficientnet.py, tf_efficientnet_lite*.in1k",
    ),
    Recipe(
        name="lightly",
        of=lambda found, _: found.kind == "sequential" and found.channels == 3,
        pixels=IMAGENET,
        source="lightly: transforms.utils.IMAGENET_NORMALIZE, the default of its transforms",
    ),
    Recipe(
        name="solo-learn",
        of=lambda found, nest: (
            (found.kind, found.prefix, found.channels) == ("resnet", "backbone.", 3) and nest != "teacher"
        ),
        pixels=IMAGENET,
        source="solo-learn: args/dataset.py (its default), methods/base.py",
    ),
    Recipe(
        name="MoCo",
        of=lambda found, _: found.prefix == "encoder_q." and found.channels == 3,
        pixels=IMAGENET,
        image_size=224,
        source="github.com/facebookresearch/moco: main_moco.py",
    ),
    Recipe(
        name="MoCo-CXR",
        of=lambda found, _: found.prefix == "encoder_q." and found.channels == 3,
        pixels=((0.502,) * 3, (0.085585,) * 3),
        image_size=224,
        source="github.com/stanfordmlgroup/MoCo-CXR: moco/aihc_utils/image_transform.py (--aug-setting chexpert)",
    ),
    Recipe(
        name="DINO",
        of=lambda found, nest: (
            found.kind in ("vit", "resnet") and nest == "teacher" and "mask_token" not in found.shapes
        ),
        pixels=IMAGENET,
        source="github.com/facebookresearch/dino: main_dino.py",
    ),
    Recipe(
        name="DINOv2",
        of=lambda found, _: found.kind == "vit" and "dinov2" in (found.arch or ""),
        pixels=IMAGENET,
        source="github.com/facebookresearch/dinov2: dinov2/data/transforms.py",
    ),
    Recipe(
        name="RAD-DINO",
        of=lambda found, _: found.kind == "vit" and found.arch == "vit_base_patch14_dinov2",
        pixels=((0.5307,) * 3, (0.2583,) * 3),
        source="huggingface.co/microsoft/rad-dino: preprocessor_config.json (backbone_compatible.safetensors)",
    ),
    Recipe(
        name="DINOv3",
        of=lambda found, _: found.kind == "dinov3" and "dinov3" in (found.arch or ""),
        pixels=IMAGENET,
        image_size=224,
        source="github.com/facebookresearch/dinov3: README, LVD-1689M",
    ),
    Recipe(
        name="DINOv3 on satellite images",
        of=lambda found, _: found.kind == "dinov3" and found.arch == "vit_large_patch16_dinov3_qkvb",
        pixels=((0.430, 0.411, 0.296), (0.213, 0.156, 0.143)),
        image_size=224,
        source="github.com/facebookresearch/dinov3: README, SAT-493M",
    ),
    Recipe(
        name="MAE",
        of=lambda found, _: found.kind == "vit" and "decoder_pred.weight" in found.shapes,
        pixels=IMAGENET,
        source="github.com/facebookresearch/mae: main_pretrain.py",
    ),
    Recipe(
        name="Medical MAE",
        of=lambda found, _: found.kind == "vit" and "decoder_pred.weight" in found.shapes,
        pixels=((0.5056,) * 3, (0.252,) * 3),
        source="github.com/lambert-x/medical_mae, as EVA-X reads it: classification/utils/datasets.py",
    ),
)
"""The table."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What is known of a file of weights that cxrdist did not write."""

    layout: Layout
    recipe: str | None
    """Whose it is; None where that does not follow from names and shapes."""
    source: str | None
    """Where `pixels` are from."""
    pixels: tuple[Colours, Colours] | None
    """Mean and deviation of each channel; None: unknown."""
    arch: str | None
    """timm's name."""
    image_size: int | None
    """Side in pixels it was trained at."""
    arch_said: bool
    """Whether the file, or a configuration beside it, names the architecture; else it follows from the shapes, which
    networks of other names may share."""
    rivals: tuple[Recipe, ...] = ()
    """Recipes of these names and shapes whose pixels differ."""

    @property
    def grey(self) -> tuple[float, float] | None:
        """Mean and deviation for grey images; None: unknown."""
        return None if self.pixels is None else grey(self.pixels)

    def hint(self) -> str:
        """What the error about unknown pixels adds: whose weights these can be."""
        if not self.rivals:
            return ""
        known = [f"{row.name} ({' and '.join(f'{value:g}' for value in grey(row.pixels))})" for row in self.rivals]
        return f"; by their names these are weights of {' or '.join(known)}"


def grey(pixels: tuple[Colours, Colours]) -> tuple[float, float]:
    """Mean and deviation for grey images: those of the channels on average."""
    mean, std = (part[0] if len(set(part)) == 1 else round(sum(part) / len(part), 9) for part in pixels)
    return mean, std


def recognise(shapes: Shapes, nest: str = "", arch: str | None = None, beside: Path | None = None) -> Found:
    """Whose weights a state dict holds.

    Args:
        shapes: of its tensors, by name.
        nest: name of the dict that they stood in (teacher, state_dict, model); empty: none.
        arch: what the file's metadata say.
        beside: folder whose config.json and preprocessor_config.json belong to it, as on the Hugging Face hub.

    Raises:
        InputError: the configuration beside it is of a network with other attention heads.
    """
    told = {} if beside is None else _told(beside)
    named = _text(told.get("architecture"))
    if isinstance(told.get("pretrained_cfg"), dict):  # of timm, whose networks of several names may share their shapes
        arch = arch or named
    layout, said = key_layouts.of(shapes), arch is not None
    layout = layout if arch is None else replace(layout, arch=arch)
    _check_heads(layout, told, beside)
    arch = layout.arch or named
    size = layout.image_size or _size(told)
    pixels = _pixels(told)
    if pixels is not None:
        source = f"{beside}: {'preprocessor_config.json' if 'image_mean' in told else 'config.json'}"
        return Found(
            layout=layout, recipe=None, source=source, pixels=pixels, arch=arch, image_size=size, arch_said=said
        )
    rows = [row for row in RECIPES if row.of(layout, nest)]
    size = size or next((row.image_size for row in rows), None)
    found = Found(
        layout=layout, recipe=None, source=None, pixels=None, arch=arch, image_size=size, arch_said=said,
        rivals=tuple(rows),
    )  # fmt: skip
    if len({row.pixels for row in rows}) != 1:
        return found
    return replace(found, recipe=rows[0].name, source=rows[0].source, pixels=rows[0].pixels, rivals=())


_SETTINGS = ("config.json", "preprocessor_config.json")


def stamp(folder: Path) -> tuple[int, ...]:
    """When the settings beside weights were last changed, nanoseconds; 0 where there are none."""
    found = []
    for name in _SETTINGS:
        try:
            found.append((folder / name).stat().st_mtime_ns)
        except OSError:
            found.append(0)
    return tuple(found)


def _told(folder: Path) -> dict[str, Any]:
    """The settings in config.json and preprocessor_config.json of a folder; empty where there are none."""
    found: dict[str, Any] = {}
    for name in _SETTINGS:
        try:
            held = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        found |= held if isinstance(held, dict) else {}
    return found


def _pixels(told: Mapping[str, Any]) -> tuple[Colours, Colours] | None:
    """Mean and deviation: of transformers' image processor, or of timm's pretrained_cfg."""
    timm = told.get("pretrained_cfg")
    mean, std = told.get("image_mean"), told.get("image_std")
    if isinstance(timm, dict) and mean is None:
        mean, std = timm.get("mean"), timm.get("std")
    elif not told.get("do_normalize", True):
        mean, std = [0.0], [1.0]
    scaled = told.get("do_rescale", True) and math.isclose(_number(told.get("rescale_factor", 1 / 255)), 1 / 255)
    if not isinstance(mean, list) or not isinstance(std, list) or not scaled or not 0 < len(mean) == len(std) <= 3:
        return None
    values = tuple(map(_number, mean)), tuple(map(_number, std))
    return values if all(map(math.isfinite, values[0])) and all(0 < value < math.inf for value in values[1]) else None


def _size(told: Mapping[str, Any]) -> int | None:
    timm = told.get("pretrained_cfg")
    wanted = timm.get("input_size") if isinstance(timm, dict) else None
    size = wanted[-1] if isinstance(wanted, list) and wanted else told.get("image_size")
    for key in ("crop_size", "size"):
        held = told.get(key)
        if size is None and isinstance(held, dict):
            size = held.get("height", held.get("shortest_edge"))
    return size if isinstance(size, int) and not isinstance(size, bool) and 0 < size <= 16384 else None


def _check_heads(layout: Layout, told: Mapping[str, Any], beside: Path | None) -> None:
    """Refuse a transformer whose configuration does not have the heads of the network that its shapes say."""
    heads = told.get("num_attention_heads")
    if layout.kind != "huggingface" or layout.arch is None or heads is None:
        return
    width = layout.shapes["patch_embed.proj.weight"][0]
    known = 16 if width == 1280 else width // 64  # 64 channels a head, but 80 of ViT-Huge
    if heads != known:
        raise InputError(
            f"{beside}: config.json has {heads} attention heads of a network {width} wide; {layout.arch} has {known}"
        )


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
