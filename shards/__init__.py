"""Chest X-ray datasets as tar shards with a Parquet index: writing them, reading them, labels, splits, sample order.

The names below are loaded when they are first used, so that `import shards` costs nothing and needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shards.errors import FailedError, InputError
    from shards.read.card import read_card
    from shards.read.dataset import ShardSet
    from shards.read.order import Order
    from shards.read.union import ShardUnion, WeightedOrder

_HOME = {
    "ShardSet": "shards.read.dataset",
    "Order": "shards.read.order",
    "ShardUnion": "shards.read.union",
    "WeightedOrder": "shards.read.union",
    "InputError": "shards.errors",
    "FailedError": "shards.errors",
    "read_card": "shards.read.card",
}

__all__ = ["FailedError", "InputError", "Order", "ShardSet", "ShardUnion", "WeightedOrder", "read_card"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'shards' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
