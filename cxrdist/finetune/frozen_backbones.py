"""Frozen networks that many model files share: kept once in a folder, named by their content.

A linear probe changes nothing but its head. Where `FinetuneConfig.backbones` names a folder, model.safetensors holds
the head and the hash of the network that it stands on, which lies in that folder once for all trials.
"""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from cxrdist.core.shared_files import once
from cxrdist.core.weights import fingerprint
from cxrdist.errors import InputError

KEY_HASH, KEY_FILE = "backbone_sha256", "backbone_file"
"""Metadata of a model file that holds a head alone: the network's hash, and its file relative to the model's folder."""

_known: weakref.WeakKeyDictionary[nn.Module, str] = weakref.WeakKeyDictionary()


def keep(backbone: nn.Module, folder: Path, model: Path) -> dict[str, str]:
    """Write a frozen network into `folder` unless it is there.

    Args:
        backbone: the network; it must not change any more.
        folder: where networks are kept.
        model: the model file that will stand on it.

    Returns:
        Metadata for the model file.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in backbone.state_dict().items()}
    if backbone not in _known:
        _known[backbone] = fingerprint(tensors)
    digest = _known[backbone]
    file = once(folder / f"{digest[:24]}.safetensors", lambda path: safetensors.torch.save_file(tensors, path))
    return {KEY_HASH: digest, KEY_FILE: os.path.relpath(file, model.parent)}


def fetch(facts: dict[str, Any], model: Path) -> dict[str, torch.Tensor]:
    """The tensors of the network that a head in `model` stands on.

    Raises:
        InputError: it is gone, or is another network.
    """
    file = Path(os.path.normpath(model.parent.absolute() / str(facts[KEY_FILE])))
    fix = "put it back there, or train the run again with models of their own (sweep --whole_models true)"
    if not file.is_file():
        raise InputError(f"{model} holds a head alone; the frozen network under it, {file}, is gone: {fix}")
    try:
        tensors = safetensors.torch.load_file(file)
    except (OSError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        raise InputError(f"{file}, the frozen network under {model}, is damaged ({error}): {fix}") from None
    if fingerprint(tensors) != facts[KEY_HASH]:
        raise InputError(f"{file} is not the frozen network that {model} was trained on: {fix}")
    return tensors
