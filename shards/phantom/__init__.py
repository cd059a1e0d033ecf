"""Generated chest X-rays: a drawn thorax with findings, devices, labels and boxes, in published layouts.

For tests, demonstrations and teaching: no patient's data are in them, and nothing learnt from them is of clinical use.
The names below load when first used, so that reading a configuration needs neither numpy nor OpenCV.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .config import PhantomConfig

if TYPE_CHECKING:
    from .publish import write_chexpert, write_nih
    from .sheet import contact_sheet

_HOME = {
    "write_nih": ".publish",
    "write_chexpert": ".publish",
    "contact_sheet": ".sheet",
}

__all__ = ["PhantomConfig", "contact_sheet", "write_chexpert", "write_nih"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
