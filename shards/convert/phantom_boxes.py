"""The boxes of everything that was drawn, for the shard set of a generated layout."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from shards.convert.plan import Plan
from shards.format import box_schema

_CHEXPERT = "CheXpert-v1.0-small/"


def truth_boxes(layout: Path, plan: Plan) -> pa.Table:
    """Return key, label, x, y, width, height (pixels of the source image) of every finding in `layout`/truth.csv.

    NIH publishes boxes for eight findings and CheXpert for none; a drawn set knows them all. Rows are sorted by key.
    """
    sources, keys = plan.table["source"].to_pylist(), plan.table["key"].to_pylist()
    key_of = dict(zip(map(_name, sources), keys, strict=True))
    rows = sorted(_rows(layout / "truth.csv", key_of))
    columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in box_schema()]
    return pa.table(columns, schema=box_schema())


def _name(source: str) -> str:
    """What truth.csv calls a source: NIH's bare file name, CheXpert's path below its root folder."""
    return source.rpartition("/")[2] if source.startswith("images_") else source.removeprefix(_CHEXPERT)


def _rows(table: Path, key_of: dict[str, str]) -> Iterator[tuple[str, str, float, float, float, float]]:
    with open(table, newline="") as file:
        for row in csv.DictReader(file):
            key = key_of.get(_name(row["Image"]))
            if key is None or not row["Bbox x"]:
                continue
            x, y, w, h = (float(row[f"Bbox {name}"]) for name in "xywh")
            width, height = int(row["Width"]), int(row["Height"])
            yield key, row["Finding"], x * width, y * height, w * width, h * height
