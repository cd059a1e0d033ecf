"""Decoded images that trials share: each shard set is decoded once per node and memory-mapped by every trial.

Shapes: n samples of a split, B of a batch, S side in pixels.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from cxrdist.core.device import usable_cores
from cxrdist.core.shared_files import once
from shards import ShardSet

IN_MEMORY_BYTES = 2 << 30
"""A trial without a cache folder holds its images in memory up to this size, and decodes each time beyond it."""

_CHUNK = 64


class Pixels:
    """Images of some samples of one split as uint8, decoded at most once where that fits.

    Args:
        shards: the split.
        size: S.
        positions: samples of the split that will be asked for, int64, as a sorted array.
        cache: folder shared by trials, or None.
        workers: decoding threads; 0 = one per core.
    """

    def __init__(self, shards: ShardSet, size: int, positions: np.ndarray, cache: str | None, workers: int = 0):
        self.shards, self.size = shards, size
        self.threads = workers or usable_cores()
        self._array: np.ndarray | None = None
        self._place: np.ndarray | None = None
        if cache is not None:
            self._array = decoded(shards, size, Path(cache), self.threads)
        elif len(positions) * size * size <= IN_MEMORY_BYTES:
            self._array = np.empty((len(positions), size, size), np.uint8)
            _decode(shards, positions, self._array, self.threads)
            self._place = positions

    def take(self, positions: np.ndarray) -> torch.Tensor:
        """uint8 (B, 1, S, S) of positions in the split, in their order, repeats allowed."""
        if self._array is None:
            out = np.empty((len(positions), self.size, self.size), np.uint8)
            _decode(self.shards, positions, out, self.threads)
        else:
            where = positions if self._place is None else np.searchsorted(self._place, positions)
            out = np.ascontiguousarray(self._array[where])
        return torch.from_numpy(out)[:, None]


def decoded(shards: ShardSet, size: int, cache: Path, threads: int) -> np.ndarray:
    """All images of a split, uint8 (n, S, S), memory-mapped from `cache`; decoded by the first who asks.

    Others wait for the first; the file appears complete or not at all, named by the shard set's hash.
    """
    name = f"images-{shards.card.sha256[:24]}-{shards.split}-{size}.npy"

    def fill(path: Path) -> None:
        out = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(len(shards), size, size))
        _decode(shards, np.arange(len(shards)), out, threads)
        out.flush()

    return np.load(once(cache / name, fill), mmap_mode="r")


def _decode(shards: ShardSet, positions: np.ndarray, out: np.ndarray, threads: int) -> None:
    def part(start: int) -> None:
        chunk = positions[start : start + _CHUNK]
        out[start : start + len(chunk)] = shards.images(chunk, out.shape[-1])[:, 0].numpy()

    starts = range(0, len(positions), _CHUNK)
    if threads == 1 or len(starts) == 1:
        for start in starts:
            part(start)
        return
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(part, starts):
            pass
