"""Where a classifier looks: Grad-CAM and occlusion maps.

Shapes: B batch, S side in pixels, L labels, C channels, h x w cells of a feature map.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from cxrdist.errors import InputError
from cxrdist.finetune.classifier import Classifier

MIN_CELLS = 7
"""Grad-CAM takes the deepest feature map with at least this many cells a side: small images shrink to 2 x 2 at the
end of a ResNet, which shows nothing. 224-pixel images have 7 x 7 there."""


def pick_layer(network: Classifier, name: str | None = None) -> str:
    """Name of the backbone's module whose output Grad-CAM uses.

    Args:
        network: the classifier.
        name: one of the backbone's modules; None = the deepest whose output has at least 7 x 7 cells, or, where none
            has, the one with most cells.

    Raises:
        InputError: no such module, or the backbone has no maps (a vision transformer): use occlusion.
    """
    maps = _feature_maps(network)
    if not maps:
        raise InputError(f"{network.facts['arch']} has no feature maps for Grad-CAM; use --method occlusion")
    if name is not None:
        if name not in maps:
            raise InputError(f"layer {name!r}: no such feature map; there are {', '.join(list(maps)[-12:])} and others")
        return name
    fine = [layer for layer, cells in maps.items() if cells >= MIN_CELLS]
    return fine[-1] if fine else max(maps, key=lambda layer: maps[layer])


def _feature_maps(network: Classifier) -> dict[str, int]:
    """Modules of the backbone that give square maps (B, C, h, h) with h > 1, in order of completion -> h.

    Empty for networks of tokens (vision transformers, Swin): their maps are not (B, C, h, w).
    """
    found: dict[str, int] = {}
    tokens: list[str] = []
    hooks = []

    def note(name: str):
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            if not isinstance(output, torch.Tensor):
                return
            if output.ndim == 3:
                tokens.append(name)
            elif output.ndim == 4 and output.shape[2] == output.shape[3] > 1:
                found.pop(name, None)
                found[name] = output.shape[2]

        return hook

    for name, module in network.backbone.named_modules():
        if name and not isinstance(module, (nn.AdaptiveAvgPool2d, nn.AvgPool2d, nn.MaxPool2d, nn.Identity, nn.Dropout)):
            hooks.append(module.register_forward_hook(note(name)))
    size = int(network.facts["image_size"])
    try:
        with torch.no_grad():
            network(torch.zeros(1, 1, size, size, device=next(network.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    return {} if tokens else found


def grad_cam(network: Classifier, pixels: torch.Tensor, column: int, layer: str) -> np.ndarray:
    """Grad-CAM (Selvaraju et al., ICCV 2017): ReLU of the feature maps weighted by their mean gradients.

    Args:
        network: in evaluation mode.
        pixels: normalised images (B, 1, S, S), float32.
        column: the label whose logit is explained.
        layer: see `pick_layer`.

    Returns:
        float32 (B, S, S), 0 and above, bilinear from the layer's cells; all 0 where nothing speaks for the label.
    """
    kept: list[torch.Tensor] = []
    module = network.backbone.get_submodule(layer)

    def keep(_module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        kept.append(output)

    hook = module.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            # Gradients must reach the layer even where the run froze its weights.
            logits = network(pixels.requires_grad_(True))
            (gradient,) = torch.autograd.grad(logits[:, column].sum(), kept[0])
    finally:
        hook.remove()
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    maps = F.relu((weights * kept[0]).sum(dim=1, keepdim=True)).detach()
    grown = F.interpolate(maps.float(), size=tuple(pixels.shape[2:]), mode="bilinear", align_corners=False)
    return grown[:, 0].cpu().numpy()


@torch.inference_mode()
def occlusion(
    network: Classifier, pixels: torch.Tensor, columns: list[int], *, patch: int | None = None, batch: int = 64
) -> np.ndarray:
    """Occlusion sensitivity (Zeiler and Fergus, ECCV 2014): how far a logit falls when a square is greyed out.

    A square of the mean grey value moves over the image by half its side; a pixel's value is the mean fall of the
    squares over it. All labels come from the same passes.

    Args:
        network: in evaluation mode.
        pixels: one normalised image (1, 1, S, S).
        columns: the labels (K of them).
        patch: side of the square in pixels; None = an eighth of S.
        batch: images a step.

    Returns:
        float32 (K, S, S), 0 and above: rises of the logit count as 0.
    """
    size = pixels.shape[-1]
    side = max(2, size // 8) if patch is None else patch
    if not 1 <= side <= size:
        raise InputError(f"patch {side}: must be 1 to {size} pixels, the side of the image")
    step = max(1, side // 2)
    starts = [*range(0, size - side, step), size - side]
    places = [(y, x) for y in starts for x in starts]
    whole = network(pixels)[0, columns].float()
    falls = torch.zeros(len(columns), size, size, device=pixels.device)
    count = torch.zeros(size, size, device=pixels.device)
    for first in range(0, len(places), batch):
        part = places[first : first + batch]
        covered = pixels.repeat(len(part), 1, 1, 1)
        for number, (y, x) in enumerate(part):
            covered[number, :, y : y + side, x : x + side] = 0  # the mean: pixels are normalised
        drop = whole - network(covered.contiguous(memory_format=torch.channels_last))[:, columns].float()
        for number, (y, x) in enumerate(part):
            falls[:, y : y + side, x : x + side] += drop[number][:, None, None]
            count[y : y + side, x : x + side] += 1
    return F.relu(falls / count).cpu().numpy()
