"""What figures with panels share: how many there may be, and which points are of one seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from results.cells.cell import Cell
from results.errors import InputError

MAX_PANELS = 24
"""Panels of a figure that can still be read."""


def panel_count(panels: Sequence[Any]) -> int:
    """How many panels there are.

    Raises:
        InputError: more than MAX_PANELS.
    """
    if len(panels) > MAX_PANELS:
        raise InputError(f"that would be {len(panels)} panels; choose with --where (at most {MAX_PANELS})")
    return len(panels)


def is_one_seed(cell: Cell) -> bool:
    """Whether a point is one trained model, so that its interval says nothing of how others would do."""
    return cell.value is not None and cell.n < 2
