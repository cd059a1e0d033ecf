"""The figures: one file each, named as it is drawn, listed in `registry`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from results.figures.registry import draw as draw

__all__ = ["draw"]


def __getattr__(name: str) -> Any:
    if name == "draw":
        from results.figures.registry import draw

        return draw
    raise AttributeError(f"module 'results.figures' has no attribute {name!r}")
