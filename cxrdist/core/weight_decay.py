"""What of a network decays and what does not."""

import fnmatch

from torch import nn


def split_decay(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Trained parameters with weight decay (matrices, filters) and without.

    Without are biases and normalisation, and what timm's `no_weight_decay` of a model names: position embeddings,
    class tokens, relative position tables.
    """
    spared = [
        f"{prefix}.{name}" if prefix else name
        for prefix, part in module.named_modules()
        if hasattr(part, "no_weight_decay")
        for name in part.no_weight_decay()  # pyright: ignore[reportCallIssue]
    ]
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            one_dimension = parameter.ndim <= 1 or name.endswith(".bias")
            keep = one_dimension or any(fnmatch.fnmatchcase(name, pattern) for pattern in spared)
            (plain if keep else decayed).append(parameter)
    return decayed, plain
