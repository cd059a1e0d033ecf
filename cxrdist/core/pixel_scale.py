"""What pixels a network expects: grey values in [0, 1], less a mean, divided by a deviation. Free of torch."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from cxrdist.core import published
from cxrdist.errors import InputError

if TYPE_CHECKING:
    from cxrdist.core.initialisation import Initialisation

IMAGENET_GREY = (0.449, 0.226)
"""Mean and standard deviation of ImageNet pixels, averaged over the colours, which most imagenet weights expect."""
AS_IMAGENET = re.compile(r"resnet\d+[dt]?|densenet\d+")
"""Architectures whose imagenet weights all expect `IMAGENET_GREY`."""


def check(config: Any, start: Initialisation) -> None:
    """Refuse weights for which nothing says what pixels they expect: frozen, they would see another scale.

    Args:
        config: a configuration with `init`, `init_mean` and `init_std`.
        start: what its `init` is.

    Raises:
        InputError: half a scale, a scale for weights that have their own, or none for a file that has none.
    """
    known = None if start.published is None else start.published.grey
    given = [name for name in ("init_mean", "init_std") if getattr(config, name) is not None]
    if len(given) == 1:
        raise InputError(f"{given[0]} is given alone; init_mean and init_std belong together")
    if given and (start.file is None or start.pixel is not None):
        raise InputError(
            f"init {config.init} has its own pixel scale; init_mean and init_std are for files that do not say theirs"
        )
    if not given and start.file is not None and start.pixel is None and known is None:
        hint = "" if start.published is None else start.published.hint()
        raise InputError(
            f"{start.file} does not say what pixels its network expects (no mean and std in its metadata): give"
            " --init_mean and --init_std, of grey values in [0, 1]. ImageNet weights expect 0.449 and 0.226, weights"
            f" of torchxrayvision, which sees [-1024, 1024], 0.5 and 0.00048828125{hint}"
        )


def scale(config: Any, start: Initialisation, own: tuple[float, float]) -> tuple[float, float]:
    """Mean and deviation, of grey values in [0, 1], that the network of a configuration expects.

    Args:
        config: a configuration with `init`, `init_mean` and `init_std`.
        start: what its `init` is.
        own: those of the training set, for a network that starts from scratch, and for one that was trained on several
            sets, each normalised by its own.
    """
    if config.init_mean is not None:
        return float(config.init_mean), float(config.init_std)
    if start.per_set:
        return own
    if start.pixel is not None:
        return start.pixel
    if start.published is not None and start.published.grey is not None:
        return start.published.grey
    return _of_timm(config.arch) if config.init == "imagenet" else own


def that_count(init: str, arch: str | None) -> dict[str, str]:
    """What a signature holds of the pixels that timm's weights expect, which are known only where timm can be loaded.

    Trials from imagenet once normalised as `IMAGENET_GREY` whatever the architecture. Where timm says otherwise, those
    are other trials, and so is every architecture of which that is not known here.

    Args:
        init: of a resolved configuration.
        arch: its architecture.
    """
    return {"imagenet_pixels": "timm"} if init == "imagenet" and not AS_IMAGENET.fullmatch(arch or "") else {}


def _of_timm(arch: str) -> tuple[float, float]:
    """What timm's ImageNet weights of an architecture expect: most the pixels of ImageNet, some 0.5 and 0.5."""
    from cxrdist.core.lean_timm import timm

    known = timm.get_pretrained_cfg(arch)
    return IMAGENET_GREY if known is None else published.grey((tuple(known.mean), tuple(known.std)))
