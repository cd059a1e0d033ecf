"""The self-supervised methods of `pretrain --method`: one entry of `METHODS` each, with the settings of its own.

A further method is a file with its loss and a class like `cxrdist.pretrain.losses.vicreg.VICReg`, and here its settings
and its entry. Free of torch: a login node checks a command line with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

# jsonargparse runs this block to resolve annotations: torch in it would load on login nodes.
if TYPE_CHECKING:
    from cxrdist.pretrain.config import PretrainConfig


@dataclass(frozen=True, kw_only=True)
class VICRegConfig:
    """VICReg (Bardes et al. 2022): no negatives; the embeddings' own statistics keep them apart."""

    invariance: Annotated[float, "[0, inf)"] = 25.0
    """Coefficient of the mean squared difference of an image's two embeddings."""
    variance: Annotated[float, "[0, inf)"] = 25.0
    """Coefficient of what each dimension's deviation over the global batch lacks to 1."""
    covariance: Annotated[float, "[0, inf)"] = 1.0
    """Coefficient of the squared covariances between dimensions."""
    expander: Annotated[list[int], "[1, 65536]"] = field(default_factory=lambda: [2048, 2048, 2048])
    """Widths of the head's layers, the last one that of the embedding. The paper's are 8192, 8192, 8192 behind a
    ResNet-50: 151 million weights, six times the backbone's; these are 9 million behind a ResNet-18."""


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """What is learnt without labels; part of `PretrainConfig`."""

    method: Literal["simclr", "vicreg"] = "simclr"
    """simclr: Chen et al. 2020, with `temperature` and `head`; vicreg: Bardes et al. 2022, with `vicreg`."""
    vicreg: VICRegConfig = field(default_factory=VICRegConfig)
    """VICReg."""


class Method(Protocol):
    """What a method brings to the training."""

    remedy: str
    """What to do against a collapse of the embeddings."""

    def head(self, features: int) -> Any:
        """The network (V, features) -> (V, E) between backbone and loss."""
        ...

    def loss(self, first: Any, second: Any, *, images: Any = None, gather: bool = True) -> Any:
        """The loss over the global batch from this rank's embeddings (B, E) of the images' two views.

        Args:
            first: embeddings of the first views.
            second: those of the second views, in the same order.
            images: which image stands at each place of the global batch, int64 (G,); None: all differ.
            gather: False: over this rank's alone.

        Returns:
            A scalar, the same on every rank; averaging parameter gradients over ranks gives its gradient.
        """
        ...


@dataclass(frozen=True)
class Entry:
    """A method in the registry."""

    build: Callable[[PretrainConfig], Method]
    settings: tuple[str, ...]
    """Fields of PretrainConfig that this method alone reads."""


def _simclr(config: PretrainConfig) -> Method:
    from cxrdist.pretrain.simclr import SimCLR

    return SimCLR(config.head, config.temperature)


def _vicreg(config: PretrainConfig) -> Method:
    from cxrdist.pretrain.losses.vicreg import VICReg

    return VICReg(config.vicreg)


METHODS: dict[str, Entry] = {
    "simclr": Entry(_simclr, ("temperature", "head", "negatives")),
    "vicreg": Entry(_vicreg, ("vicreg",)),
}


def foreign_settings(method: str) -> dict[str, str]:
    """Fields that the method does not read, each with the name of the one that does."""
    return {name: other for other, entry in METHODS.items() if other != method for name in entry.settings}


def that_counts(values: Mapping[str, Any]) -> dict[str, Any]:
    """A pretraining's configuration as its signature takes it: without what its method does not read.

    Settings that are later than the first signatures count only where they are used.

    Args:
        values: nested, as in config.toml.
    """
    method = values["method"]
    later = {"comm_hook": "none", "positives": "image", "negatives": "all", "normalise": "union"}
    unused = {name for name, value in later.items() if values[name] == value}
    left_out = {*foreign_settings(method), "method", *unused}
    kept = {key: value for key, value in values.items() if key not in left_out}
    return kept if method == "simclr" else kept | {"learns_by": method}
