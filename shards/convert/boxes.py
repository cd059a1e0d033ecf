"""The boxes that a source publishes, as columns, and those of the samples that are kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from shards.convert.rows import keep, looked_up, one, place, with_column
from shards.convert.spill import reordered, stored
from shards.format import box_schema

pc: Any = pyarrow.compute  # its functions are made at import, unseen by type checkers

SourceBox = tuple[str, str, float, float, float, float]
"""Source, label, x, y, width, height in source pixels."""
_BATCH = 1 << 12
_OF = "key"
"""The column of `box_schema` that holds the source until `of_samples` puts the key there."""


def gather_boxes(boxes: Iterable[SourceBox]) -> pa.Table:
    """Return boxes as a table of `box_schema`, with the source (or another name) in place of the key."""

    def batches() -> Iterator[pa.RecordBatch]:
        source = iter(boxes)
        while some := list(islice(source, _BATCH)):
            columns = zip(*some, strict=True)
            arrays = [pa.array(column, field.type) for column, field in zip(columns, box_schema(), strict=True)]
            yield pa.record_batch(arrays, schema=box_schema())

    return stored(batches(), box_schema())


def renamed(boxes: pa.Table, names: pa.ChunkedArray | pa.Array, new: pa.ChunkedArray | pa.Array) -> pa.Table:
    """Return boxes of `names` as boxes of the `new` names at the same places; boxes of no name there are dropped."""
    at = place(boxes[_OF], names)
    known = one(at.is_valid()).to_numpy(zero_copy_only=False)
    return keep(with_column(boxes, _OF, looked_up(new, at)), known)


def of_samples(boxes: pa.Table, rows: pa.Table) -> pa.Table:
    """Return the boxes of the rows' sources as boxes.parquet holds them: under their keys, sorted by every column."""
    boxes = renamed(boxes, rows["source"], rows["key"])
    order = pc.sort_indices(boxes, sort_keys=[(name, "ascending") for name in boxes.column_names])
    return reordered(boxes, order.to_numpy().astype(np.int64))
