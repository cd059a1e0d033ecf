"""Encoder features of every sample of a shard set, as one Parquet file.

Shapes: n samples, D features.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from cxrdist.errors import InputError
from cxrdist.inference.network import Encoder, batches
from results import atomic
from shards import ShardSet, parquet
from shards.labels import NULL
from shards.progress import Progress


def schema_of(shards: ShardSet, width: int, encoder: Encoder) -> pa.Schema:
    """Columns key, split, patient_id, view, sex, age, label_*, and features as a list of `width` float32."""
    fields = [pa.field(name, pa.string()) for name in ("key", "split", "patient_id", "view", "sex")]
    fields.append(pa.field("age", pa.float32()))
    fields += [pa.field(f"label_{name}", pa.int8()) for name in shards.labels]
    fields.append(pa.field("features", pa.list_(pa.float32(), width)))
    about = {
        "cxrdist.inference.network": str(encoder.source),
        "cxrdist.arch": encoder.name,
        "cxrdist.image_size": str(encoder.image_size),
        "cxrdist.shards_sha256": shards.card.sha256,
        "cxrdist.dataset": shards.card.name,
    }
    return pa.schema(fields, metadata=about)


def described(shards: ShardSet, positions: np.ndarray) -> dict[str, pa.Array]:
    """What the index says about samples: one Arrow array per column of `schema_of`, without features."""
    rows, index = shards.rows_at(positions), shards.index
    split = np.empty(len(rows), dtype=object)
    for name in shards.card.splits:
        span = index.split_range(name)
        split[(rows >= span.start) & (rows < span.stop)] = name
    columns = {
        "key": pa.array(index.keys(rows).tolist(), pa.string()),
        "split": pa.array(split.tolist(), pa.string()),
        "patient_id": pa.array(index.patient_id(rows).tolist(), pa.string()),
        "view": pa.array([value or None for value in index.view(rows).tolist()], pa.string()),
        "sex": pa.array([value or None for value in index.sex(rows).tolist()], pa.string()),
        "age": pa.array(np.asarray(index.age(rows), np.float32), pa.float32(), from_pandas=True),
    }
    for name in shards.labels:
        values = index.label(name)[rows]
        columns[f"label_{name}"] = pa.array(values, pa.int8(), mask=values == NULL)
    return columns


def embed(encoder: Encoder, shards: ShardSet, out: Path, *, quiet: bool = False) -> int:
    """Write features of all samples of `shards`, in its order, and return their number.

    Memory stays that of a few batches. The file appears when it is complete; an older one of that name is replaced
    only if it is an embedding too.

    Raises:
        InputError: `out` is something else, or cannot be written.
    """
    if out.is_dir() or (out.exists() and not _is_embedding(out)):
        raise InputError(f"{out} exists and is not a file of features; choose another --out")
    if not len(shards):
        raise InputError(f"{shards.path}: no samples in split {shards.split}")
    encoder = encoder.fitted_to(shards.card)
    width = int(encoder.module.num_features)  # pyright: ignore[reportArgumentType]
    layout = schema_of(shards, width, encoder)

    def fill(temporary: Path) -> None:
        with (
            parquet.writer(temporary, layout) as writer,
            Progress(len(shards), "embedded", unit="image", quiet=quiet) as bar,
        ):
            for positions, images in batches(shards, np.arange(len(shards)), encoder.image_size):
                features = encoder.features(images)
                columns = described(shards, positions)
                flat = pa.array(features.ravel(), pa.float32())
                columns["features"] = pa.FixedSizeListArray.from_arrays(flat, width)
                writer.write_table(pa.table(columns, schema=layout))
                bar.add(len(positions))

    atomic.write(out, fill)
    return len(shards)


def _is_embedding(path: Path) -> bool:
    try:
        with parquet.opened(path, path) as file:
            return "features" in file.schema_arrow.names
    except ValueError:  # the shards' InputError
        return False
