"""The paper tables: one file each, named as it is printed, listed in `registry`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from results.tables.registry import build as build

__all__ = ["build"]


def __getattr__(name: str) -> Any:
    if name == "build":
        from results.tables.registry import build

        return build
    raise AttributeError(f"module 'results.tables' has no attribute {name!r}")
