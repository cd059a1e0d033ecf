"""Where a classifier looks: class activation maps of several kinds, and occlusion.

Shapes: B batch, K labels explained, S side in pixels, C channels, h x w cells of a feature map.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from math import ceil, isqrt
from typing import TypeVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from cxrdist.errors import InputError
from cxrdist.finetune.classifier import Classifier

_Network = TypeVar("_Network", bound=nn.Module)

MIN_CELLS = 4
WIDEST_CELL = 16
"""Maps come from the deepest layer that carries all of the image (`carries_all`) in at least `MIN_CELLS` cells a side
of at most `WIDEST_CELL` pixels each (measured at 28 to 224 pixels: benches/reports/explain.md)."""


def _gradcam(maps: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    return F.relu((gradient.mean(dim=(2, 3), keepdim=True) * maps).sum(dim=1))


def _hirescam(maps: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    return F.relu((gradient * maps).sum(dim=1))


def _layercam(maps: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    return F.relu((F.relu(gradient) * maps).sum(dim=1))


def _eigencam(maps: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    del gradient  # the map is the same for every label
    flat = maps.flatten(2).transpose(1, 2).float()  # B, h * w, C
    centred = flat - flat.mean(dim=1, keepdim=True)
    axis = torch.linalg.svd(centred, full_matrices=False).Vh[:, 0]
    along = (centred @ axis[:, :, None])[..., 0]
    strength = flat.abs().sum(dim=2)
    sign = torch.sign((along * (strength - strength.mean(dim=1, keepdim=True))).sum(dim=1, keepdim=True))
    return F.relu(along * sign).unflatten(1, maps.shape[2:])


CAMS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "gradcam": _gradcam,
    "hirescam": _hirescam,
    "layercam": _layercam,
    "eigencam": _eigencam,
}
"""Feature maps (B, C, h, w) and the logit's gradient there -> a map (B, h, w), 0 and above.

gradcam (Selvaraju et al., ICCV 2017): maps weighted by their mean gradient.
hirescam (Draelos and Carin 2020): gradient times map, cell by cell.
layercam (Jiang et al., TIP 2021): the same with the positive part of the gradient.
eigencam (Muhammad and Yeasin, IJCNN 2020): projection on the first principal component, whatever the label; its sign is
chosen so that the strongest cells are hot."""


def pick_layer(network: Classifier, name: str | None = None) -> str:
    """Name of the backbone's module whose output class activation maps use.

    Args:
        network: the classifier.
        name: one of the backbone's modules; None = the deepest with enough cells (see `WIDEST_CELL`) that carries all,
            or, where there is none, the one with most cells; of a vision transformer the last block's first
            normalisation, since tokens beyond it do not reach the logits.

    Raises:
        InputError: no such module, or the backbone has no maps: use occlusion.
    """
    maps = feature_maps(network)
    if not maps:
        raise InputError(f"{network.facts['arch']} has no feature maps for Grad-CAM; use --method occlusion")
    if name is not None:
        if name not in maps:
            raise InputError(f"layer {name!r}: no such feature map; there are {', '.join(list(maps)[-12:])} and others")
        return name
    if _is_transformer(network):
        return list(maps)[-1]
    enough = max(MIN_CELLS, ceil(network.facts["image_size"] / WIDEST_CELL))
    deepest_first = [layer for layer, cells in reversed(maps.items()) if cells >= enough]
    whole = (layer for layer in deepest_first if carries_all(network, layer))
    return next(whole, max(maps, key=lambda layer: maps[layer]))


def carries_all(network: Classifier, layer: str) -> bool:
    """Whether all that the logits see of an image passes through a layer's output.

    Inside a residual block it does not: the first convolution of a ResNet-50's last stage has the resolution of the
    stage before, but a map of it leaves out what takes the block's shortcut.
    """
    hook = network.backbone.get_submodule(layer).register_forward_hook(lambda _module, _inputs, output: output.detach())
    pixels = _blank(network).requires_grad_()
    try:
        with torch.enable_grad():
            logits = network(pixels).sum()
            return not logits.requires_grad or torch.autograd.grad(logits, pixels, allow_unused=True)[0] is None
    finally:
        hook.remove()


def _blank(network: Classifier) -> torch.Tensor:
    """An image of zeros (1, 1, S, S) on the network's device, to see what a pass calls."""
    size = int(network.facts["image_size"])
    return torch.zeros(1, 1, size, size, device=next(network.parameters()).device)


def _is_transformer(network: Classifier) -> bool:
    return hasattr(network.backbone, "num_prefix_tokens") and hasattr(network.backbone, "blocks")


def _grid(network: Classifier, output: object) -> torch.Tensor | None:
    """A module's output as maps (B, C, h, h): tokens of a transformer are laid out, without its class token."""
    if not isinstance(output, torch.Tensor):
        return None
    if output.ndim == 3 and _is_transformer(network):
        tokens = output[:, int(network.backbone.num_prefix_tokens) :]  # pyright: ignore[reportArgumentType]
        side = isqrt(tokens.shape[1])
        return tokens.transpose(1, 2).unflatten(2, (side, side)) if side * side == tokens.shape[1] else None
    return output if output.ndim == 4 and output.shape[2] == output.shape[3] else None


def feature_maps(network: Classifier) -> dict[str, int]:
    """Modules of the backbone that give square maps (B, C, h, h) with h > 1, in order of completion -> h.

    Of a vision transformer the first normalisation of each block. Empty for other networks of tokens (Swin).
    """
    found: dict[str, int] = {}
    foreign: list[str] = []
    hooks = []
    transformer = _is_transformer(network)

    def note(name: str):
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, torch.Tensor) and output.ndim == 3 and not transformer:
                foreign.append(name)
            maps = _grid(network, output)
            if maps is not None and maps.shape[2] > 1:
                found.pop(name, None)
                found[name] = maps.shape[2]

        return hook

    pools = (nn.AdaptiveAvgPool2d, nn.AvgPool2d, nn.MaxPool2d, nn.Identity, nn.Dropout)
    for name, module in network.backbone.named_modules():
        wanted = name.endswith(".norm1") if transformer else name and not isinstance(module, pools)
        if wanted:
            hooks.append(module.register_forward_hook(note(name)))
    try:
        with torch.no_grad():
            network(_blank(network))
    finally:
        for hook in hooks:
            hook.remove()
    return {} if foreign else found


def class_maps(
    network: Classifier, pixels: torch.Tensor, columns: Sequence[int], layer: str, method: str = "gradcam"
) -> np.ndarray:
    """Class activation maps at the resolution of their layer; one forward pass serves all labels.

    Args:
        network: in evaluation mode.
        pixels: normalised images (B, 1, S, S), float32.
        columns: the labels whose logits are explained.
        layer: see `pick_layer`.
        method: one of `CAMS`.

    Returns:
        float32 (K, B, h, w), 0 and above; all 0 where nothing speaks for the label.
    """
    kept: list[torch.Tensor] = []
    module = network.backbone.get_submodule(layer)
    hook = module.register_forward_hook(lambda *call: kept.append(call[-1]))
    try:
        with torch.enable_grad():
            # Gradients must reach the layer even where the run froze its weights.
            logits = network(pixels.detach().clone().requires_grad_(True))
    finally:
        hook.remove()
    found = []
    for column in columns:
        (gradient,) = torch.autograd.grad(logits[:, column].sum(), kept[0], retain_graph=True)
        maps, slopes = _grid(network, kept[0].detach()), _grid(network, gradient)
        assert maps is not None and slopes is not None
        found.append(CAMS[method](maps, slopes).float().cpu().numpy())
    return np.stack(found)


def untrained(network: _Network, seed: int = 0) -> _Network:
    """A copy with all weights drawn anew as its layers draw them, and running statistics put back."""
    fresh = copy.deepcopy(network)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in fresh.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
    return fresh.eval()


def grown(cells: np.ndarray, size: int) -> np.ndarray:
    """Maps (..., h, w) enlarged to (..., size, size), bilinear between the middles of their cells."""
    flat = torch.from_numpy(cells.reshape(-1, 1, *cells.shape[-2:]))
    large = F.interpolate(flat, size=(size, size), mode="bilinear", align_corners=False)
    return large.numpy().reshape(*cells.shape[:-2], size, size)


def grad_cam(network: Classifier, pixels: torch.Tensor, column: int, layer: str) -> np.ndarray:
    """Grad-CAM (Selvaraju et al., ICCV 2017) of one label: float32 (B, S, S); see `class_maps`."""
    return grown(class_maps(network, pixels, [column], layer)[0], pixels.shape[-1])


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
