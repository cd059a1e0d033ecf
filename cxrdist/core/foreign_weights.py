"""Files of weights that cxrdist did not write: opened without running code from them, brought to timm's names.

Shapes: O outputs, C channels, D width.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from cxrdist.core import published
from cxrdist.core.lean_timm import timm
from cxrdist.core.published import Colours, Found
from cxrdist.errors import InputError

NESTS = ("teacher", "state_dict", "model", "model_ema", "module")
"""Names under which checkpoints keep the state dict, in the order in which one is taken."""
_HARMLESS = [argparse.Namespace, np.dtype, np.float64(0).__reduce__()[0], type(np.dtype("f4")), type(np.dtype("f8"))]
"""Settings and best scores that programs save beside their weights."""


@dataclass(frozen=True)
class Pickled:
    """What torch.save wrote."""

    tensors: dict[str, torch.Tensor]
    """The state dict."""
    nest: str
    """Name of the innermost dict that it stood in; empty: none."""


def read_pickled(file: Path) -> Pickled:
    """The state dict of a file that torch.save wrote, by torch's reader that runs no code.

    Raises:
        InputError: the file holds something else, or objects that only code can make.
    """
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds of errors for files that are not its own
        raise InputError(f"{file} {_why_unsafe(error)}") from None
    nest = ""
    while isinstance(found, dict) and (inner := next((n for n in NESTS if isinstance(found.get(n), dict)), None)):
        found, nest = found[inner], inner
    if not isinstance(found, dict) or not all(isinstance(v, torch.Tensor) for v in found.values()) or not found:
        raise InputError(f"{file} holds no state dict")
    return Pickled({str(name).removeprefix("module."): value for name, value in found.items()}, nest)


def _why_unsafe(error: Exception) -> str:
    """What is wrong with a file of weights, in our words: torch's would advise to run the code inside it."""
    held = re.search(r"Unsupported (?:global: GLOBAL|class) (\S+)", str(error))
    if held is not None or "GLOBAL" in str(error):
        what = f" ({held[1].rstrip('.')})" if held else ""
        return (
            f"holds Python objects{what} beside weights, and opening those could run code; save the state dict alone "
            "where you trust the file, best as .safetensors"
        )
    return "is not a file of weights, or is damaged; give .safetensors, or a state dict saved by torch.save"


def recognise(tensors: Mapping[str, torch.Tensor], nest: str, arch: str | None, file: Path) -> Found:
    """Whose weights they are; see `published.recognise`."""
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    return published.recognise(shapes, nest, arch, file.parent)


def in_timm_names(
    tensors: Mapping[str, torch.Tensor], found: Found, backbone: nn.Module, own_pixels: bool = False
) -> dict[str, torch.Tensor]:
    """An encoder's tensors as the backbone takes them.

    Args:
        tensors: of the file.
        found: what they were recognised as.
        backbone: of timm, one channel; its position embeddings say at which size they are needed.
        own_pixels: the user, or the file's metadata, say what pixels the network expects, of which all channels are
            equal.

    Returns:
        Tensors by timm's names, first layers for three channels folded to one.
    """
    named = {
        name: value
        for name, value in ((published.key_layouts.own_name(key, found.layout), v) for key, v in tensors.items())
        if name is not None
    }
    if found.layout.kind == "dinov3" or "dinov3" in (found.arch or ""):
        if "register_tokens" in named:
            named["storage_tokens"] = named.pop("register_tokens")
        named.pop("mask_token", None)
    named = _joined(named)
    convert = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)
    if convert is not None and found.layout.kind in ("vit", "huggingface", "dinov3", "eva_x"):
        try:
            named = convert(dict(named), backbone)
        except Exception as error:  # timm's converters of another network fail in many ways
            reason = " ".join(str(error).split())[:120]
            raise InputError(
                f"weights of a {found.arch or 'vision transformer'} do not fit this network: {reason}"
            ) from None
    if found.pixels is not None and not own_pixels:
        named = _fold_colours(named, found.pixels)
    return named


def _joined(named: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Query, key and value that stand apart, as one `qkv`; a bias that is not there is zero."""
    joined = dict(named)
    for name in [name for name in named if name.endswith(".attn.q.weight")]:
        start = name.removesuffix("q.weight")
        parts = [joined.pop(f"{start}{part}.weight") for part in "qkv"]
        biases = [joined.pop(f"{start}{part}.bias", None) for part in "qkv"]
        joined[f"{start}qkv.weight"] = torch.cat(parts)
        if any(bias is not None for bias in biases):
            filled = [parts[i].new_zeros(len(parts[i])) if bias is None else bias for i, bias in enumerate(biases)]
            joined[f"{start}qkv.bias"] = torch.cat(filled)
    return joined


def _fold_colours(named: dict[str, torch.Tensor], pixels: tuple[Colours, Colours]) -> dict[str, torch.Tensor]:
    """Fold patch embeddings (D, 3, p, p) whose channels were normalised each in its own way.

    A grey value x reaches channel c as (x - m_c) / s_c. With the grey m and s of `published.grey` that is
    (s z + m - m_c) / s_c of z = (x - m) / s: the weights are scaled by s / s_c and summed, the rest is a bias. Exact,
    as patches are not padded. Convolutions without a bias are summed over the colours as they are.
    """
    weight, bias = named.get("patch_embed.proj.weight"), named.get("patch_embed.proj.bias")
    if weight is None or bias is None or weight.shape[1] != 3 or len(set(pixels[0])) == len(set(pixels[1])) == 1:
        return named
    mean, std = published.grey(pixels)
    means, stds = (torch.tensor(part, dtype=torch.float64).view(1, 3, 1, 1) for part in pixels)
    wide = weight.double() / stds
    folded = {
        "patch_embed.proj.weight": (wide * std).sum(1, keepdim=True).to(weight.dtype),
        "patch_embed.proj.bias": (bias.double() + (wide * (mean - means)).sum((1, 2, 3))).to(bias.dtype),
    }
    return {**named, **folded}


def fold_stem(weight: torch.Tensor, in_chans: int = 1) -> torch.Tensor:
    """A first convolution (O, 3, h, w) folded to grey input: the sum over the colours.

    Exact: for a grey image x, conv(x, folded) = conv((x, x, x), weight).
    """
    return timm.models.adapt_input_conv(in_chans, weight)
