"""The index of a shard set: one row per sample, as numpy columns.

Legend: N samples, L labels. Rows are numbered 0..N-1 in the order of index.parquet: by split, shard, offset.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shards.errors import InputError
from shards.read import index_cache

MAPPED_ROWS = 200_000
"""From this many rows on the columns are memory-mapped from files made at first use (see shards.read.index_cache)."""


class Index:
    """Numpy columns of index.parquet. Open with `Index.open`; pickles as its path.

    Attributes:
        path: the Parquet file.
        n: number of samples.
        labels: label names, in column order.
        splits: name -> range of row numbers.
        shards: names of the tar files; `shard` holds positions in this tuple.
        split: int8 (N,), position in `tuple(splits)`.
        shard: int32 (N,). offset: int64 (N,). size: int32 (N,): where the image's bytes lie.
        patient: int32 (N,), the same code for the same patient.
    """

    def __init__(
        self, path: Path, meta: dict, arrays: dict[str, np.ndarray], *, mapped: bool, sha256: str | None = None
    ):
        """Use `Index.open`."""
        self.path, self.n, self.mapped = path, int(meta["n"]), mapped
        self._sha256 = sha256
        self.labels: tuple[str, ...] = tuple(meta["labels"])
        self.shards: tuple[str, ...] = tuple(meta["shard_names"])
        self._meta, self._arrays = meta, arrays
        self.split, self.shard = arrays["split"], arrays["shard"]
        self.offset, self.size, self.patient = arrays["offset"], arrays["size"], arrays["patient"]
        self.splits = self._split_ranges(meta["split_names"])
        self._label_rows = {name: row for row, name in enumerate(self.labels)}

    @classmethod
    def open(cls, path: str | os.PathLike, *, mapped: bool | None = None, sha256: str | None = None) -> "Index":
        """Open the index of a shard set.

        Args:
            path: folder of the shard set, or its index.parquet.
            mapped: memory-map the columns (True), read them into memory (False), or by size (None: from
                `MAPPED_ROWS` rows). Mapping writes a copy of the columns next to the index, or into the cache folder
                ($CXRDIST_CACHE, else ~/.cache/cxrdist) where the shard set is read-only.
            sha256: what the card says of its content, 64 hex digits; None believes the file. A mapped copy remembers
                the content that it was made from, so that a large file is hashed once and not at every opening.

        Raises:
            InputError: when it is missing, damaged, not the content of `sha256`, lacks a column, or is not sorted by
                split.
        """
        path = Path(path)
        parquet = path / "index.parquet" if path.is_dir() else path
        if mapped is None:
            mapped = index_cache.row_count(parquet) >= MAPPED_ROWS
        meta, arrays = index_cache.mapped(parquet, sha256) if mapped else index_cache.read(parquet, sha256)
        return cls(parquet, meta, arrays, mapped=mapped, sha256=sha256)

    def __reduce__(self):
        return _reopen, (str(self.path), self.mapped, self._sha256)

    def __len__(self) -> int:
        return self.n

    def rows(self, split: str) -> np.ndarray:
        """Row numbers of a split, int64 (n,), ascending.

        Raises:
            InputError: when there is no such split.
        """
        span = self.split_range(split)
        return np.arange(span.start, span.stop, dtype=np.int64)

    def split_range(self, split: str) -> range:
        """Row numbers of a split as a range; raises InputError when there is no such split."""
        if split not in self.splits:
            raise InputError(f"{self.path} has no split {split!r}; it has {', '.join(self.splits) or 'none'}")
        return self.splits[split]

    def label(self, name: str) -> np.ndarray:
        """One label, int8 (N,): 1 positive, 0 negative, -1 uncertain, labels.NULL not mentioned.

        Raises:
            InputError: when the index has no such label.
        """
        return self._arrays["labels"][self._label_row(name)]

    def labels_matrix(self, names: Sequence[str] | None = None, rows: np.ndarray | None = None) -> np.ndarray:
        """Labels as int8 (B, L), columns in the order of `names` (None: all), for `rows` (None: all N)."""
        which = [self._label_row(name) for name in (self.labels if names is None else names)]
        part = slice(None) if rows is None else rows
        out = np.empty((self.n if rows is None else len(rows), len(which)), dtype=np.int8)
        for column, row in enumerate(which):
            out[:, column] = self._arrays["labels"][row][part]
        return out

    def labels_at(self, row: int) -> np.ndarray:
        """All labels of one sample, int8 (L,)."""
        return self._arrays["labels"][:, row].copy()

    def key(self, row: int) -> str:
        """Key of one sample."""
        first, last = self._arrays["key_offsets"][row : row + 2]
        return self._arrays["key_bytes"][first:last].tobytes().decode()

    def keys(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Keys of rows (None: all), object array of str (B,)."""
        return self._take("key", rows)

    def patient_id(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Patient id of rows (None: all), object array of str (B,). A sample without one has its key instead."""
        return self._take("patient_name", self.patient if rows is None else self.patient[rows])

    def study_id(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Study of rows (None: all), object array (B,): a str, or None where the source does not say it."""
        if "study" not in self._arrays:
            return np.full(self.n if rows is None else len(rows), None, dtype=object)
        codes = self._arrays["study"] if rows is None else self._arrays["study"][rows]
        names = np.full(len(codes), None, dtype=object)
        names[codes >= 0] = self._take("study_name", codes[codes >= 0])
        return names

    def view(self, rows: np.ndarray | None = None) -> np.ndarray:
        """View of rows (None: all): "PA", "AP", "LATERAL" or None, object array (B,)."""
        return self._coded("view", rows)

    def sex(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Sex of rows (None: all): "M", "F" or None, object array (B,)."""
        return self._coded("sex", rows)

    def age(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Age in years of rows (None: all), float32 (B,), NaN where unknown."""
        if "age" not in self._arrays:
            return np.full(self.n if rows is None else len(rows), np.nan, dtype=np.float32)
        return self._arrays["age"] if rows is None else self._arrays["age"][rows]

    def find(self, keys: Iterable[str]) -> np.ndarray:
        """Row numbers of keys, int64 (B,), in their order.

        Raises:
            InputError: when one is not in the index.
        """
        wanted = pa.array(keys, pa.large_string())
        matches = pc.call_function("index_in", [self._table("key")], pc.SetLookupOptions(wanted)).to_numpy(
            zero_copy_only=False
        )
        rows = np.full(len(wanted), -1, dtype=np.int64)
        hit = np.flatnonzero(~np.isnan(matches)) if matches.dtype.kind == "f" else np.arange(self.n)
        rows[matches[hit].astype(np.int64)] = hit
        if (rows < 0).any():
            lost = wanted[int(np.argmin(rows))]
            raise InputError(f"{self.path} has no sample {lost} ({(rows < 0).sum()} of {len(wanted)} keys are missing)")
        return rows

    def _label_row(self, name: str) -> int:
        if name not in self._label_rows:
            raise InputError(f"{self.path} has no label {name!r}; it has {', '.join(self.labels) or 'none'}")
        return self._label_rows[name]

    def _split_ranges(self, names: Sequence[str]) -> dict[str, range]:
        """Rows of each split; the index must be sorted by it."""
        if self.n == 0:
            return {}
        edges = np.flatnonzero(np.diff(self.split)) + 1
        starts, stops = np.r_[0, edges], np.r_[edges, self.n]
        codes = self.split[starts]
        if len(starts) != len(names) or codes.min() < 0:
            raise InputError(f"{self.path} is not sorted by split: convert the dataset again")
        spans = map(range, starts.tolist(), stops.tolist())
        return {str(names[code]): span for code, span in zip(codes, spans, strict=True)}

    def _table(self, name: str) -> pa.LargeStringArray:
        offsets, data = self._arrays[f"{name}_offsets"], self._arrays[f"{name}_bytes"]
        return pa.LargeStringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(data))

    def _take(self, name: str, rows: np.ndarray | None) -> np.ndarray:
        table = self._table(name)
        if rows is not None:
            table = table.take(pa.array(np.asarray(rows, dtype=np.int64)))
        return table.to_numpy(zero_copy_only=False)

    def _coded(self, name: str, rows: np.ndarray | None) -> np.ndarray:
        count = self.n if rows is None else len(rows)
        if name not in self._arrays:
            return np.full(count, None, dtype=object)
        codes = self._arrays[name] if rows is None else self._arrays[name][rows]
        return np.array([*self._meta[f"{name}_names"], None], dtype=object)[codes]


def _reopen(path: str, mapped: bool, sha256: str | None) -> Index:
    return Index.open(path, mapped=mapped, sha256=sha256)
