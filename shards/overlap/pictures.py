"""Thumbnails of all images of a shard set, read tar by tar in worker processes.

Legend: n images of a tar, N of the set, S side of a thumbnail (`shards.overlap.fingerprint.SIDE`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from shards.convert.grey import Unusable
from shards.convert.images import decode, grey_sums, is_flat, single_thread
from shards.errors import InputError
from shards.overlap.fingerprint import SIDE, hashes, thumbnail
from shards.processes import cores, run_jobs
from shards.progress import Progress
from shards.read.decode import square


@dataclass(frozen=True)
class Pictures:
    """Thumbnails of some images of a set, with their hashes; about 1.1 kB each."""

    rows: np.ndarray
    """Row of each in the index, int64 (B,), ascending."""
    thumbnails: np.ndarray
    """uint8 (B, S, S)."""
    hashes: np.ndarray
    """uint64 (B, WORDS)."""


@dataclass(frozen=True)
class Seen:
    """What a set shows."""

    whole: Pictures
    """The whole of every image but those of nearly one grey, whose hashes mean nothing."""
    middle: Pictures
    """The centre square of those that are not square: others may have published just that."""
    flat: int
    """Images left out."""


@dataclass(frozen=True, kw_only=True)
class _Job:
    path: Path
    first: int
    keys: Sequence[str]
    offsets: Sequence[int]
    sizes: Sequence[int]


_Part = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]


def look(root: Path, index: pa.Table, *, workers: int | None, say: Callable[[str], None]) -> Seen:
    """Read every image of a set.

    Args:
        root: its local folder.
        index: columns key, shard, offset and size of its index, in order.
        workers: processes; None: one per core.
        say: takes progress lines.

    Raises:
        InputError: an image cannot be read.
    """
    jobs = list(_jobs(root, index))
    found: dict[int, _Part] = {}
    with Progress(index.num_rows, f"looked at {root.name}", say) as progress:
        for job, part in run_jobs([(_read, job) for job in jobs], min(workers or cores(), max(1, len(jobs)))):
            found[job.first] = part
            progress.add(len(job.keys))
    parts = [found[first] for first in sorted(found)]
    return Seen(_joined(parts, 0), _joined(parts, 2), sum(part[4] for part in parts))


def _jobs(root: Path, index: pa.Table) -> list[_Job]:
    """One job a tar; the rows of a tar stand together."""
    names = index["shard"].combine_chunks()
    runs = names.dictionary_encode().indices.to_numpy(zero_copy_only=False)
    edges = np.r_[0, np.flatnonzero(np.diff(runs)) + 1, len(runs)] if len(runs) else np.zeros(1, np.int64)
    made = []
    for first, last in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        rows = index.slice(first, last - first)
        made.append(
            _Job(
                path=root / names[first].as_py(),
                first=first,
                keys=rows["key"].to_pylist(),
                offsets=rows["offset"].to_pylist(),
                sizes=rows["size"].to_pylist(),
            )
        )
    return made


def _read(job: _Job) -> _Part:
    """Return rows and thumbnails of whole images, the same of middles, and how many images are flat."""
    single_thread()
    rows, wholes, middle_rows, middles, flat = [], [], [], [], 0
    try:
        with open(job.path, "rb") as file:
            for row, (key, offset, size) in enumerate(zip(job.keys, job.offsets, job.sizes, strict=True), job.first):
                pixels = _pixels(os.pread(file.fileno(), size, offset), job.path, key)
                if is_flat(*grey_sums(pixels), pixels.size):
                    flat += 1
                    continue
                rows.append(row)
                wholes.append(thumbnail(pixels))
                if pixels.shape[0] != pixels.shape[1]:
                    middle_rows.append(row)
                    middles.append(thumbnail(np.ascontiguousarray(square(pixels))))
    except OSError as error:
        raise InputError(
            f"{job.path}: {error.strerror}; `cxrdist verify {job.path.parent}` lists what is missing"
        ) from error
    return _rows(rows), _stack(wholes), _rows(middle_rows), _stack(middles), flat


def _pixels(data: bytes, tar: Path, key: str) -> np.ndarray:
    try:
        pixels = decode(data, max_pixels=1 << 30).pixels
    except Unusable as error:
        raise InputError(f"{tar}: sample {key} cannot be read ({error}); run `cxrdist verify {tar.parent}`") from error
    if pixels.dtype != np.uint8:
        raise InputError(f"{tar}: sample {key} has {pixels.dtype} pixels; run `cxrdist verify {tar.parent}`")
    return pixels


def _rows(numbers: list[int]) -> np.ndarray:
    return np.array(numbers, np.int64)


def _stack(thumbnails: list[np.ndarray]) -> np.ndarray:
    return np.stack(thumbnails) if thumbnails else np.empty((0, SIDE, SIDE), np.uint8)


_BATCH = 1 << 14


def _joined(parts: Sequence[_Part], first: int) -> Pictures:
    """The rows and thumbnails at two places of all parts as one."""
    rows = np.concatenate([part[first] for part in parts] or [_rows([])])
    thumbnails = np.concatenate([part[first + 1] for part in parts] or [_stack([])])
    batches = [hashes(thumbnails[at : at + _BATCH]) for at in range(0, max(1, len(rows)), _BATCH)]
    return Pictures(rows, thumbnails, np.concatenate(batches))
