"""What figures with panels share: how many there may be, and which rows they show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from results.cells.cell import Cell
from results.cells.display import show
from results.cells.options import Options
from results.errors import InputError
from results.schema import Row

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


def largest_fraction(rows: list[Row], options: Options) -> tuple[list[Row], str]:
    """The rows of the largest label fraction, and a sentence that says so, unless the user chose one."""
    fractions = {row["label_fraction"] for row in rows if row["label_fraction"] is not None}
    if len(fractions) < 2 or any(text.startswith("label_fraction=") for text in options.where):
        return rows, ""
    top = max(fractions)
    note = f" Only the largest share of labels ({show('label_fraction', top)}) is shown."
    return [row for row in rows if row["label_fraction"] == top], note


def is_one_seed(cell: Cell) -> bool:
    """Whether a point is one trained model, so that its interval says nothing of how others would do."""
    return cell.value is not None and cell.n < 2
