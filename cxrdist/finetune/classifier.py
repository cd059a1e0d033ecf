"""Backbone and head as one model: made from an initialisation, frozen in parts, saved and loaded.

Shapes: B images, S side in pixels, D features, L labels.
"""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cxrdist.core import backbones, kmeans_patches, pixel_scale, weights
from cxrdist.core.configs import from_dict
from cxrdist.core.initialisation import KMEANS_PATCHES, PATCH_FEATURES, SMALL_CNN, describe
from cxrdist.core.small_cnn import SmallCNN
from cxrdist.errors import InputError
from cxrdist.finetune import frozen_backbones, patch_dictionary
from cxrdist.finetune.config import ClassifierHeadConfig, FinetuneConfig, head_settings
from cxrdist.finetune.heads import build_head


class Classifier(nn.Module):
    """Images (B, 1, S, S), normalised -> logits (B, L).

    Attributes:
        backbone: gives features (B, D).
        head: features -> logits.
        facts: arch, image_size, mean, std, stem, labels and head, as the model file carries them.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module, facts: dict[str, Any]):
        super().__init__()
        self.backbone, self.head, self.facts = backbone, head, facts
        self._frozen: list[nn.Module] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (B, L)."""
        return self.head(self.backbone(images))

    def train(self, on: bool = True) -> Classifier:
        """As nn.Module; frozen parts stay in evaluation mode, so that their BatchNorm statistics do not move."""
        super().train(on)
        for part in self._frozen:
            part.eval()
        return self

    def unfreeze(self, last: int | None, by_layer: bool = False) -> list[nn.Parameter]:
        """Let gradients into the head and the last stages, or layers, of the backbone.

        Args:
            last: stages counted from the output; 0 = the head alone, None = everything.
            by_layer: count layers instead.

        Returns:
            The backbone's parameters that are trained now.

        Raises:
            InputError: the backbone has fewer.
        """
        trained = self._last(last, by_layer)
        for name, parameter in self.backbone.named_parameters():
            parameter.requires_grad_(name in trained)
        self._frozen = [self.backbone] if not trained else _still(self.backbone)
        self.train(self.training)
        return [parameter for parameter in self.backbone.parameters() if parameter.requires_grad]

    def trained(self, last: int | None, by_layer: bool = False) -> int:
        """Number of weights that train with the last stages or layers (see `unfreeze`), the head's among them."""
        names = self._last(last, by_layer)
        sizes = [parameter.numel() for name, parameter in self.backbone.named_parameters() if name in names]
        return sum(sizes) + parameters(self.head)

    def _last(self, last: int | None, by_layer: bool) -> set[str]:
        """Names of the backbone's parameters in its last stages or layers; see `unfreeze`."""
        if not last:
            return {name for name, _ in self.backbone.named_parameters()} if last is None else set()
        arch, option, unit = self.facts["arch"], *(("last_layers", "layers") if by_layer else ("last_n", "stages"))
        try:
            groups = layers(self.backbone) if by_layer else stages(self.backbone)
        except NotImplementedError:
            raise InputError(
                f"last_n {last}: timm does not divide {arch} into stages; count layers (last_layers), or take mode full"
            ) from None
        if last > len(groups):
            raise InputError(f"{option} {last}: {arch} has {len(groups)} {unit}; take fewer, or mode full")
        return {name for group in groups[len(groups) - last :] for name in group}


def _still(backbone: nn.Module) -> list[nn.Module]:
    """Modules that own parameters, none of them trained."""
    own = ((module, list(module.parameters(recurse=False))) for module in backbone.modules())
    return [module for module, found in own if found and not any(p.requires_grad for p in found)]


def stages(backbone: nn.Module) -> list[list[str]]:
    """Names of the backbone's parameters by depth, from the input: for a resnet stem, layer1 .. layer4.

    These are timm's coarse groups, as its layer-wise learning rates use them. A group of normalisation alone (the last
    one of densenet, convnext and swin) belongs to the stage before it.

    Raises:
        NotImplementedError: timm knows no groups for this architecture.
    """
    if isinstance(backbone, SmallCNN):
        return backbone.stages()
    from timm.models import group_parameters

    if not hasattr(backbone, "group_matcher"):
        raise NotImplementedError
    groups = group_parameters(backbone, backbone.group_matcher(coarse=True))  # pyright: ignore[reportCallIssue]
    shapes = {name: parameter.ndim for name, parameter in backbone.named_parameters()}
    joined: list[list[str]] = []
    for _, names in sorted(groups.items()):
        if joined and all(shapes[name] <= 1 for name in names):
            joined[-1] += names
        else:
            joined.append(list(names))
    return joined


def layers(backbone: nn.Module) -> list[list[str]]:
    """Names of the backbone's parameters by layer, from the input, in the order in which the network lists them.

    A layer begins with a tensor of two dimensions or more (of a convolution, a linear layer, an embedding) that is not
    of the module of the one before; biases and normalisation belong to the layer before them.
    """
    found: list[list[str]] = []
    owner = None
    for name, parameter in backbone.named_parameters():
        module = name.rpartition(".")[0]
        if not found or (parameter.ndim > 1 and module != owner):
            found.append([])
            owner = module
        found[-1].append(name)
    return found


def build(config: FinetuneConfig, labels: tuple[str, ...], pixel: tuple[float, float]) -> Classifier:
    """The model of a resolved configuration at its first step.

    In mode linear, scratch is one fixed random network (weights of seed 0), so that seeds vary what they vary for the
    other encoders: the labels drawn and the head.

    Args:
        config: resolved, so that arch and image_size are set.
        labels: the L labels.
        pixel: mean and standard deviation of the training pixels in [0, 1], used unless the encoder brings its own.
    """
    assert config.arch is not None and config.image_size is not None
    asked = (config.init, config.arch, config.image_size, config.stem, config.init_mean is not None, config.norm)
    if config.init == KMEANS_PATCHES:
        backbone, known = patch_dictionary.learnt(config)
    elif config.mode == "linear":
        backbone, known = _frozen_backbone(describe(config.init).sha256, *asked)
    else:
        torch.manual_seed(config.seed)
        backbone, known = _backbone(*asked)
    mean, std = pixel_scale.scale(config, describe(config.init), pixel)
    facts = {
        "format": "cxrdist classifier 1",
        "arch": config.arch,
        "in_chans": 1,
        "image_size": config.image_size,
        "stem": known.get("stem", "standard"),
        "stem_size": known.get("image_size", config.image_size),
        "mean": float(mean),
        "std": float(std),
        "labels": list(labels),
        "head": head_settings(config.head),
    }
    if config.norm != "batch":
        facts["norm"] = config.norm
    if patch_dictionary.KEY in known:
        facts[patch_dictionary.KEY] = known[patch_dictionary.KEY]
    torch.manual_seed(config.seed)
    head = build_head(config.head, int(backbone.num_features), len(labels))  # pyright: ignore[reportArgumentType]
    return _laid_out(Classifier(backbone, head, facts))


def _laid_out(classifier: Classifier) -> Classifier:
    """One layout in memory for all: another one sums in another order."""
    return classifier.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def _backbone(
    init: str, arch: str, image_size: int, stem: str, own_pixels: bool, norm: str
) -> tuple[nn.Module, dict[str, str]]:
    if arch != SMALL_CNN:
        return backbones.load_init(init, arch, image_size, stem=stem, own_pixels=own_pixels)
    if init != "scratch":
        raise InputError(f"small_cnn starts from scratch only, not from init {init}")
    return SmallCNN(norm=norm == "batch"), {}


@functools.lru_cache(maxsize=2)
def _frozen_backbone(
    sha256: str | None, init: str, arch: str, image_size: int, stem: str, own_pixels: bool, norm: str
) -> tuple[nn.Module, dict[str, str]]:
    """A backbone that no trial changes: linear probes of one encoder that share a process share it too."""
    del sha256  # part of the key: a file that was replaced is another encoder
    torch.manual_seed(0)
    backbone, known = _backbone(init, arch, image_size, stem, own_pixels, norm)
    return backbone.requires_grad_(False).eval(), known


def save(path: Path, classifier: Classifier, backbones: Path | None = None, **more: Any) -> str:
    """Write backbone, head and facts as safetensors, complete or not at all.

    Args:
        path: the model file.
        classifier: what to write.
        backbones: folder that keeps the backbone for all models that stand on it, so that the file holds the head
            alone; None = the file holds both.
        more: further facts.
    """
    facts = classifier.facts | more
    tensors = classifier.state_dict()
    if backbones is not None:
        facts |= frozen_backbones.keep(classifier.backbone, backbones, path)
        tensors = {name: value for name, value in tensors.items() if name.startswith("head.")}
    return weights.write(path, tensors, {k: v if isinstance(v, str) else json.dumps(v) for k, v in facts.items()})


def load(path: str | os.PathLike[str]) -> Classifier:
    """A fine-tuned model, in evaluation mode.

    Args:
        path: model.safetensors, or the run that holds it.

    Raises:
        InputError: no such file, or it is damaged or of something else.
    """
    file = Path(path) / "model.safetensors" if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise InputError(f"{file} does not exist; give a finished fine-tuning run")
    tensors, raw = weights.read(file)
    facts = _facts(raw, file)
    if frozen_backbones.KEY_HASH in facts:
        tensors |= {f"backbone.{name}": value for name, value in frozen_backbones.fetch(facts, file).items()}
    backbone: nn.Module
    if facts["arch"] == SMALL_CNN:
        backbone = SmallCNN(norm=facts.get("norm", "batch") == "batch")
    elif facts["arch"] == PATCH_FEATURES:
        backbone = kmeans_patches.of_state(tensors, file)
    else:
        size = facts["stem_size"] if facts["stem"] == "small" else facts["image_size"]
        backbone = backbones.build_backbone(facts["arch"], int(size), stem=facts["stem"])
    features = int(backbone.num_features)  # pyright: ignore[reportArgumentType]
    described = from_dict(ClassifierHeadConfig, facts["head"], f"{file}: head")
    head = build_head(described, features, len(facts["labels"]), len(tensors.get("head.landmarks", ())))
    classifier = Classifier(backbone, head, facts)
    try:
        classifier.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(f"{file} does not fit its own description: {str(error).splitlines()[0]}") from None
    return _laid_out(classifier).eval()


def _facts(raw: dict[str, str], file: Path) -> dict[str, Any]:
    """The metadata of a model file, checked.

    Raises:
        InputError: they are not those of a fine-tuned model, or cannot be.
    """
    if not raw.get("format", "").startswith("cxrdist classifier"):
        raise InputError(f"{file} is not a fine-tuned model of cxrdist")
    facts = {key: text if key in _TEXTS else _value(text) for key, text in raw.items()}
    labels, head = facts.get("labels"), facts.get("head")
    needed = ("arch", "image_size", "stem", "stem_size", "mean", "std", "labels", "head")
    if lost := [key for key in needed if key not in facts]:
        raise InputError(f"{file} has no {' and no '.join(lost)} in its metadata; it is damaged or foreign")
    if not isinstance(labels, list) or not labels or not all(isinstance(name, str) for name in labels):
        raise InputError(f"{file}: its metadata say labels = {raw['labels'][:60]!r}, which cannot be")
    if not isinstance(head, dict):
        raise InputError(f"{file}: its metadata say head = {raw['head'][:60]!r}, which cannot be")
    backbones.check_description(facts, file)
    return facts | {key: float(facts[key]) for key in ("mean", "std")}


_TEXTS = ("arch", "format", "stem", "signature", frozen_backbones.KEY_HASH, frozen_backbones.KEY_FILE)
_TEXTS += (patch_dictionary.KEY,)
"""Facts that are text even where they look like a number."""


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def parameters(module: nn.Module) -> int:
    """Number of trainable and frozen parameters."""
    return sum(parameter.numel() for parameter in module.parameters())
