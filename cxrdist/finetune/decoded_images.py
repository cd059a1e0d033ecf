"""Decoded images that trials share: each shard set is decoded once per node and memory-mapped by every trial.

Without a shared folder a trial holds its images in memory; those of a set too large for that are decoded each time they
are asked for, ahead of the network that takes them.

Shapes: n samples of a split, B of a batch, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cxrdist.core.ahead import ahead
from cxrdist.core.device import usable_cores
from cxrdist.core.shared_files import once
from shards import Order, ShardSet
from shards.read.loader import Loader

IN_MEMORY_BYTES = 2 << 30
"""A trial without a cache folder holds its images in memory up to this size, and decodes each time beyond it."""

_CHUNK = 64
_MOST_AHEAD = 16
"""Batches that are decoded at a time: a thread decodes thousands of images a second, and each batch takes memory."""


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

    @property
    def kept(self) -> bool:
        """Whether the images are decoded already and lie in memory or in a shared file."""
        return self._array is not None

    def batches(self, parts: Sequence[np.ndarray]) -> Iterator[torch.Tensor]:
        """As `take`, of one part after the other; what must be decoded is, while the caller works on earlier ones."""
        return map(self.take, parts) if self.kept else ahead(self.take, parts, min(self.threads, _MOST_AHEAD))

    def take(self, positions: np.ndarray) -> torch.Tensor:
        """uint8 (B, 1, S, S) of positions in the split, in their order, repeats allowed."""
        if self._array is None:
            out = np.empty((len(positions), self.size, self.size), np.uint8)
            _decode(self.shards, positions, out, self.threads)
        else:
            where = positions if self._place is None else np.searchsorted(self._place, positions)
            out = np.ascontiguousarray(self._array[where])
        return torch.from_numpy(out)[:, None]


class StepImages:
    """The images of the steps of a training, decoded by threads while the steps before are trained.

    What a step gets depends on the step alone, also for a training that was resumed or leaves steps out.

    Args:
        shards: the split.
        positions: the training samples in the split, int64 (n,).
        order: which of the n stand in which step.
        steps: step to stop before.
        size: S.
        threads: that decode.
        pin: put the images into page-locked memory, for copies to a GPU that do not block.
    """

    def __init__(
        self, shards: ShardSet, positions: np.ndarray, order: Order, *, steps: int, size: int, threads: int, pin: bool
    ) -> None:
        self._chosen, self._order = shards.select(shards.rows_at(positions)), order
        self._loading: dict[str, Any] = {"stop_step": steps, "workers": threads, "size": size, "pin": pin}
        self._stream: Any = None
        self._following = -1

    def take(self, step: int) -> torch.Tensor:
        """uint8 (G, 1, S, S) of a step; decoding goes on with the steps that follow it."""
        if step != self._following:
            self.close()
            self._stream = iter(Loader(self._chosen, self._order, start_step=step, **self._loading))
        _, _, images = next(self._stream)
        self._following = step + 1
        return images

    def close(self) -> None:
        """Stop the threads."""
        if self._stream is not None:
            self._stream.close()
        self._stream, self._following = None, -1


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
