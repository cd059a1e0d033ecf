"""The learning: self-supervised pretraining, fine-tuning and what is measured along the way.

Importing this package loads neither torch nor timm; its modules do, where they need them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cxrdist.core.backbones import load_encoder as load_encoder
    from cxrdist.inference.loaded import load_classifier as load_classifier
    from cxrdist.pretrain.losses.nt_xent import nt_xent as nt_xent

_HOMES = {
    "load_classifier": "cxrdist.inference.loaded",
    "load_encoder": "cxrdist.core.backbones",
    "nt_xent": "cxrdist.pretrain.losses.nt_xent",
}

__all__ = ["load_classifier", "load_encoder", "nt_xent"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
