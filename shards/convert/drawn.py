"""Drawn X-rays in a published layout are named as what they are, whatever converter reads them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from shards.convert.about import OWN
from shards.convert.phantom_boxes import truth_boxes
from shards.convert.plan import Plan
from shards.phantom.publish import MARKER

SOURCE = "drawn X-rays (cxrdist shard phantom)"
STYLES = ("nih", "chexpert")
BOXES = "boxes.parquet"


def layout_of(src: str) -> tuple[Path, str] | None:
    """Return folder and style of a layout that `shard phantom` drew; None for any other source."""
    for folder in (Path(src), Path(src).parent):  # CheXpert's images may be named by their own folder
        try:
            style = json.loads((folder / MARKER).read_text(encoding="utf-8")).get("style")
        except (OSError, ValueError, AttributeError):
            continue
        if style in STYLES:
            return folder, str(style)
    return None


def as_drawn(plan: Plan, layout: Path, style: str, origin: Mapping[str, Any] | None = None) -> Plan:
    """Return the plan of a drawn layout under its own name, with all drawn boxes and no publisher's licence.

    Args:
        plan: as the converter of the published layout made it.
        layout: folder with truth.csv.
        style: nih or chexpert.
        origin: more facts for the card's config.
    """
    extras = {name: table for name, table in plan.extras.items() if name != BOXES}
    if isinstance(plan.table, pa.Table):
        extras[BOXES] = truth_boxes(layout, plan)
    return dataclasses.replace(
        plan, name=f"phantom-{style}", source=SOURCE, about=OWN, origin=dict(origin or plan.origin), extras=extras
    )
