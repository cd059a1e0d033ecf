"""Backbones: timm models with one-channel input, their first layers fitted to small images, and their files.

An encoder file is safetensors: the state dict of `timm.create_model(arch, in_chans=1, num_classes=0)` (with the
small stem, where the metadata says so) and metadata of strings: arch, in_chans, image_size, mean, std, stem,
num_features, signature.

Shapes: B images, D features.
"""

from __future__ import annotations

import difflib
import logging
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

import cxrdist.core.eva_x  # noqa: F401  (registers its models with timm)
from cxrdist.core import foreign_weights, weights
from cxrdist.core.foreign_weights import fold_stem as fold_stem
from cxrdist.core.initialisation import safetensors_metadata
from cxrdist.core.lean_timm import timm
from cxrdist.errors import InputError

_SMALL_STEM_UP_TO = 64  # pixels
_KEEP_POOL_ABOVE = 32  # pixels


def stem_for(arch: str, image_size: int, stem: str = "auto", init: str = "scratch") -> str:
    """The first layers that `auto` stands for: "small" or "standard".

    small is for resnets and densenets up to 64 pixels that start from scratch; published weights have the standard
    stem. An encoder file brings its own (see `load_init`).
    """
    if stem != "auto":
        return stem
    has_stem = arch.startswith(("resnet", "resnext", "wide_resnet", "seresnet", "densenet"))
    return "small" if has_stem and image_size <= _SMALL_STEM_UP_TO and init == "scratch" else "standard"


def build_backbone(arch: str, image_size: int, in_chans: int = 1, *, stem: str = "auto") -> nn.Module:
    """A timm backbone without a classifier, weights random from torch's generator.

    Args:
        arch: a timm name.
        image_size: side of the images, pixels; fixes position embeddings and the stem.
        in_chans: channels of the input.
        stem: auto, standard, or small (He et al. 2016, section 4.2: 3x3 first convolution; stride 1 and no pooling
            up to 32 pixels, stride 2 and the pooling kept above).

    Returns:
        A module (B, in_chans, image_size, image_size) -> features (B, D) with an attribute `num_features` = D.

    Raises:
        InputError: the name is not one of timm's, or the size does not suit the architecture.
    """
    if not timm.is_model(arch):
        near = difflib.get_close_matches(arch, timm.list_models(), n=5)
        raise InputError(f"arch {arch!r} is not a timm model" + (f"; near names: {', '.join(near)}" if near else ""))
    options: dict[str, Any] = {"in_chans": in_chans, "num_classes": 0}
    published = timm.get_pretrained_cfg(arch)
    if published is not None and published.fixed_input_size:
        options["img_size"] = image_size
    try:
        model = timm.create_model(arch, pretrained=False, **options)
        if stem_for(arch, image_size, stem) == "small":
            _fit_small_stem(model, arch, image_size, in_chans)
        _check_size(model, arch, image_size, in_chans)
    except (AssertionError, RuntimeError, ValueError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"arch {arch} cannot take {image_size} x {image_size} images: {error}") from None
    return model


def _check_size(model: nn.Module, arch: str, image_size: int, in_chans: int) -> None:
    """Send one empty image through: finds a size that leaves nothing, or that patches would cut short."""
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    if patch is not None and image_size % patch[0]:
        raise InputError(f"arch {arch} needs an image_size that is a multiple of {patch[0]}, not {image_size}")
    was_training = model.training
    model.eval()
    with torch.no_grad():
        width = model(torch.zeros(1, in_chans, image_size, image_size)).shape
    model.train(was_training)
    if width != (1, model.num_features):
        raise InputError(f"arch {arch} gives features {tuple(width)}; it must give one vector per image")


def _fit_small_stem(model: nn.Module, arch: str, image_size: int, in_chans: int) -> None:
    tiny = image_size <= _KEEP_POOL_ABOVE
    if hasattr(model, "conv1") and hasattr(model, "maxpool"):
        owner, conv, pool = model, "conv1", "maxpool"
    elif hasattr(model, "features") and hasattr(model.features, "conv0"):
        owner, conv, pool = model.features, "conv0", "pool0"
    else:
        raise InputError(f"arch {arch} has no small stem; use --stem standard")
    first = getattr(owner, conv)
    if isinstance(first, nn.Conv2d):
        stride = 1 if tiny else 2
        setattr(owner, conv, nn.Conv2d(in_chans, first.out_channels, 3, stride, 1, bias=first.bias is not None))
        nn.init.kaiming_normal_(getattr(owner, conv).weight, mode="fan_out", nonlinearity="relu")
    elif tiny:  # deep stems are 3x3 already
        first[0].stride = (1, 1)
    if tiny:
        setattr(owner, pool, nn.Identity())


def save_encoder(path: str | os.PathLike[str], backbone: nn.Module, metadata: dict[str, Any]) -> str:
    """Write a backbone and its metadata (values become strings) as safetensors, and return the hash of its weights."""
    return weights.write(Path(path), backbone.state_dict(), {k: str(v) for k, v in metadata.items()})


def _encoder_file(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    if path.is_dir():
        if (path / "encoder.safetensors").is_file():
            return path / "encoder.safetensors"
        raise InputError(f"{path} holds no encoder.safetensors; is its pretraining finished?")
    if not path.is_file():
        raise InputError(f"{path} does not exist; give an encoder.safetensors or the folder of a pretraining run")
    return path


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The metadata of an encoder file (or of the run folder that holds it); empty where the file has none.

    Raises:
        InputError: no such file, or not a safetensors file.
    """
    return safetensors_metadata(_encoder_file(path))


def check_description(facts: Mapping[str, Any], file: Path) -> None:
    """Refuse metadata of an encoder or a classifier that cannot be what they say; what is absent is not looked at.

    Raises:
        InputError: naming the file, the key and the value.
    """
    rules: dict[str, Callable[[str], bool]] = {
        "image_size": lambda text: text.isdecimal() and text.isascii() and 1 <= int(text) <= 16384,
        "stem_size": lambda text: text.isdecimal() and text.isascii() and 1 <= int(text) <= 16384,
        "in_chans": lambda text: text in ("1", "3"),
        "stem": lambda text: text in ("standard", "small"),
        "mean": lambda text: math.isfinite(float(text)),
        "std": lambda text: 0 < float(text) < math.inf,
    }
    for key, good in rules.items():
        if key not in facts:
            continue
        text = str(facts[key])
        try:
            fine = good(text)
        except ValueError:
            fine = False
        if not fine:
            raise InputError(f"{file}: its metadata say {key} = {text[:60]!r}; damaged, or not written by cxrdist")


def load_encoder(path: str | os.PathLike[str]) -> tuple[nn.Module, dict[str, str]]:
    """A pretrained backbone and its metadata.

    Args:
        path: encoder.safetensors, or the folder of the run that made it.

    Returns:
        The module (evaluation mode; (B, 1, s, s) -> (B, D)) and its metadata, all strings.

    Raises:
        InputError: no such file, or not one that cxrdist wrote.
    """
    file = _encoder_file(path)
    tensors, metadata = weights.read(file)
    missing = [k for k in ("arch", "image_size") if k not in metadata]
    if missing:
        raise InputError(
            f"{file} has no {' and '.join(missing)} in its metadata; give it as --init with --arch instead"
        )
    check_description(metadata, file)
    stem = metadata.get("stem", "standard")
    backbone = build_backbone(
        metadata["arch"], int(metadata["image_size"]), int(metadata.get("in_chans", "1")), stem=stem
    )
    load_weights(backbone, tensors, str(file))
    return backbone.eval(), metadata


def load_init(
    init: str, arch: str, image_size: int, *, stem: str = "auto", own_pixels: bool = False
) -> tuple[nn.Module, dict[str, str]]:
    """The backbone a run starts from.

    Args:
        init: scratch; imagenet (timm's published weights, fetched or cached); a weights file (.safetensors, or .pth
            opened without unpickling code) of cxrdist or one that `published` knows; or a pretraining run's folder.
        arch: timm name; must agree with an encoder's own.
        image_size: side of the images, pixels; may differ from the encoder's.
        stem: as `build_backbone`; auto follows the weights.
        own_pixels: the user says what pixels the weights expect (`--init_mean`, `--init_std`).

    Returns:
        The module and a dict with `init` (scratch, imagenet or file), `stem`, and an encoder file's metadata.

    Raises:
        InputError: unknown name or file, weights of another architecture, or ImageNet weights out of reach.
    """
    if init == "scratch":
        kind = stem_for(arch, image_size, stem)
        return build_backbone(arch, image_size, stem=kind), {"init": "scratch", "stem": kind}
    if init == "imagenet":
        kind = stem_for(arch, image_size, stem, init)
        backbone = build_backbone(arch, image_size, stem=kind)
        load_weights(backbone, _imagenet(arch), f"timm's weights of {arch}", arch)
        return backbone, {"init": "imagenet", "stem": kind}
    file = _encoder_file(init)
    metadata: dict[str, str] = {}
    nest = ""
    if file.suffix == ".safetensors":
        tensors, metadata = weights.read(file)
        check_description(metadata, file)
    else:
        pickled = foreign_weights.read_pickled(file)
        tensors, nest = pickled.tensors, pickled.nest
        weights.refuse_not_finite(tensors, file)
    if metadata.get("arch", arch) != arch:
        raise InputError(f"{file} holds a {metadata['arch']}, but --arch is {arch}; they must be the same")
    found = None if {"image_size", "size"} & set(metadata) else foreign_weights.recognise(tensors, nest, arch, file)
    kind = metadata.get("stem") or stem_for(arch, image_size, stem, init)
    if stem not in ("auto", kind):
        raise InputError(f"{file} has the {kind} stem, but --stem is {stem}; leave it auto")
    # A small stem keeps the strides it was trained with: they follow from the size it was trained at.
    built_for = int(metadata.get("image_size", image_size)) if kind == "small" else image_size
    backbone = build_backbone(arch, built_for, stem=kind)
    if found is not None:
        told = own_pixels or {"mean", "std"} <= set(metadata)
        tensors = foreign_weights.in_timm_names(tensors, found, backbone, told)
    load_weights(backbone, tensors, str(file), arch)
    return backbone, {**metadata, "init": "file", "stem": kind}


def _imagenet(arch: str) -> dict[str, torch.Tensor]:
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.CRITICAL)  # its retries would be many lines; the one that follows says it all
    try:
        return timm.create_model(arch, pretrained=True).state_dict()
    except Exception as error:  # any of the hub's, the network's and timm's own errors
        cause = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise InputError(
            f"ImageNet weights of {arch} could not be downloaded ({cause}); without network, fetch them elsewhere and "
            "give the file: --init FILE.safetensors"
        ) from None
    finally:
        hub.setLevel(level)


def load_weights(backbone: nn.Module, tensors: dict[str, torch.Tensor], source: str, arch: str | None = None) -> None:
    """Load a state dict into a backbone: 3-channel stems are folded, classifiers dropped, positions resampled.

    Raises:
        InputError: weights are missing or of other shapes; `source` names where they came from.
    """
    own = backbone.state_dict()
    config: dict[str, Any] = getattr(backbone, "pretrained_cfg", {}) or {}
    stems = config.get("first_conv") or ()
    for name in (stems,) if isinstance(stems, str) else stems:
        key = f"{name}.weight"
        if key in tensors and key in own and tensors[key].ndim == 4 and tensors[key].shape[1] == 3 != own[key].shape[1]:
            tensors = {**tensors, key: fold_stem(tensors[key], own[key].shape[1])}
    if "pos_embed" in own and "pos_embed" in tensors and own["pos_embed"].shape != tensors["pos_embed"].shape:
        from timm.layers.pos_embed import resample_abs_pos_embed

        # Some networks have no places for their class and register tokens.
        bare = getattr(backbone, "no_embed_class", False)
        prefix = 0 if bare else int(getattr(backbone, "num_prefix_tokens", 1))
        grid: Any = backbone.patch_embed
        resampled = resample_abs_pos_embed(tensors["pos_embed"], list(grid.grid_size), num_prefix_tokens=prefix)
        tensors = {**tensors, "pos_embed": resampled}
    tensors = {k: v for k, v in tensors.items() if k in own}
    wrong = [k for k in own if k not in tensors or tensors[k].shape != own[k].shape]
    if wrong:
        what = f"{source} does not fit {arch or 'its architecture'}: "
        if wrong[0] in tensors:
            shapes = f"{tuple(tensors[wrong[0]].shape)} instead of {tuple(own[wrong[0]].shape)}"
            raise InputError(what + f"{wrong[0]} is {shapes} ({len(wrong)} of {len(own)} tensors differ)")
        raise InputError(what + f"{wrong[0]} is missing ({len(wrong)} of {len(own)} tensors)")
    backbone.load_state_dict(tensors)
