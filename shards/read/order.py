"""Sample order as a pure function of (seed, epoch, position): any number of ranks, workers or restarts sees the same.

Legend: n samples, G global batch, W window in shards.

The run is one endless stream of positions 0, 1, 2, ...  Position p belongs to epoch p // n and is element p % n of
that epoch's permutation of 0..n-1; the global batch of a step is positions step*G .. step*G+G-1. So every epoch
visits each sample exactly once, no sample is ever dropped, and where n is not a multiple of G the batch that closes an
epoch is filled with the first samples of the next one (such a batch may hold a sample twice).
"""

import hashlib
import math
from collections import OrderedDict
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from shards.errors import InputError

_KEPT_BLOCKS = 2  # a batch touches at most the end of one window and the start of the next, unless it is huge


class Order:
    """Which sample stands at which position of the training stream.

    With `window=None` an epoch is one permutation of all n samples. With `window=W` the shards are shuffled, cut into
    groups of W, and the samples of each group are shuffled among themselves: only W shards need be at hand at a time
    and only one group's permutation is in memory. W of at least the number of shards equals `window=None`.
    """

    def __init__(
        self,
        n: int,
        *,
        seed: int,
        global_batch: int,
        shard_sizes: Sequence[int] | np.ndarray | None = None,
        window: int | None = None,
    ):
        """Fix the stream.

        Args:
            n: number of samples of the split, >= 1.
            seed: any integer; two seeds give unrelated orders.
            global_batch: samples per step over all ranks, >= 1; may exceed n.
            shard_sizes: samples in each shard, in index order, summing to n; needed only with a window.
            window: number of shards shuffled together; None means all.

        Raises:
            InputError: for sizes that cannot be.
        """
        if n < 1:
            raise InputError(f"an order needs at least one sample, got {n}: is the split empty?")
        if global_batch < 1:
            raise InputError(f"global_batch must be 1 or more, got {global_batch}")
        if window is not None and window < 1:
            raise InputError(f"window must be 1 shard or more, got {window} (leave it out to shuffle everything)")
        if window is not None and shard_sizes is None:
            raise InputError("a window counts shards, so it needs shard_sizes (ShardSet.shard_sizes)")
        self.n, self.seed, self.global_batch, self.window = int(n), int(seed), int(global_batch), window
        sizes = np.asarray([n] if shard_sizes is None else shard_sizes, dtype=np.int64)
        if sizes.sum() != n or (sizes < 0).any():
            raise InputError(f"shard_sizes must be 0 or more each and sum to {n}, they sum to {sizes.sum()}")
        if window is None or window >= len(sizes):
            sizes, self.window = np.asarray([n], dtype=np.int64), None
        self._sizes = sizes
        self._starts = np.cumsum(sizes) - sizes
        self._blocks: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self._layouts: OrderedDict[int, tuple[np.ndarray, np.ndarray]] = OrderedDict()

    def steps(self, epochs: float) -> int:
        """Steps that visit every sample `epochs` times: ceil(epochs * n / G)."""
        return math.ceil(Fraction(epochs).limit_denominator(1_000_000) * self.n / self.global_batch)

    def positions(self, step: int) -> np.ndarray:
        """Samples of the global batch at a step: int64 (G,), values 0..n-1, in batch order.

        Raises:
            InputError: for a negative step.
        """
        if step < 0:
            raise InputError(f"a step is 0 or more, got {step}")
        first, out = step * self.global_batch, np.empty(self.global_batch, dtype=np.int64)
        done = 0
        while done < self.global_batch:
            epoch, start = divmod(first + done, self.n)
            count = min(self.global_batch - done, self.n - start)
            self._fill(epoch, start, out[done : done + count])
            done += count
        return out

    def epoch_order(self, epoch: int) -> np.ndarray:
        """The whole epoch: int64 (n,), a permutation of 0..n-1."""
        out = np.empty(self.n, dtype=np.int64)
        self._fill(epoch, 0, out)
        return out

    def _fill(self, epoch: int, start: int, out: np.ndarray) -> None:
        """Write elements start .. start+len(out) of an epoch into `out`."""
        _, ends = self._layout(epoch)
        block = int(np.searchsorted(ends, start, side="right"))
        done = 0
        while done < len(out):
            begin = int(ends[block - 1]) if block else 0
            values = self._block(epoch, block)[start + done - begin :][: len(out) - done]
            out[done : done + len(values)] = values
            done, block = done + len(values), block + 1

    def _layout(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The shuffled shards of an epoch, and where in the epoch each group of W of them ends."""
        if epoch not in self._layouts:
            shards = permutation(len(self._sizes), self.seed, epoch, "shards")
            group = self.window or len(shards)
            ends = np.cumsum(self._sizes[shards])
            last = np.minimum(np.arange(group, len(shards) + group, group), len(shards)) - 1
            _remember(self._layouts, epoch, (shards, ends[last]))
        return self._layouts[epoch]

    def _block(self, epoch: int, block: int) -> np.ndarray:
        """The samples of one group of shards, shuffled."""
        if (epoch, block) not in self._blocks:
            shards, _ = self._layout(epoch)
            group = self.window or len(shards)
            chosen = shards[block * group : (block + 1) * group]
            order = permutation(int(self._sizes[chosen].sum()), self.seed, epoch, f"window {block}")
            if len(chosen) > 1 or self._starts[chosen[0]]:
                order = _ranges(self._starts[chosen], self._sizes[chosen])[order]
            _remember(self._blocks, (epoch, block), order)
        return self._blocks[epoch, block]


def permutation(n: int, seed: int, epoch: int, stream: str) -> np.ndarray:
    """A permutation of 0..n-1, int64 (n,), the same on every machine and numpy version.

    Each index gets random high bits from Philox (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3")
    and keeps itself in the low bits; sorting these words shuffles. Philox's raw stream is fixed by its definition,
    while numpy promises no such thing for `Generator.permutation`.
    """
    digest = hashlib.sha256(f"cxrdist order|{seed}|{epoch}|{stream}".encode()).digest()
    words = np.random.Philox(key=int.from_bytes(digest[:16], "little")).random_raw(n)
    low = np.uint64(max(1, (n - 1).bit_length()))
    words >>= low
    words <<= low
    words |= np.arange(n, dtype=np.uint64)
    words.sort()
    words &= np.uint64((1 << int(low)) - 1)
    return words.view(np.int64)


def rank_slice(global_batch: int, rank: int, world: int) -> slice:
    """The part of a global batch that one rank computes; all ranks get equally much.

    Raises:
        InputError: when `global_batch` is not a multiple of `world`.
    """
    _check_rank(rank, world)
    if global_batch % world:
        below, above = global_batch // world * world, (global_batch // world + 1) * world
        near = f"{below} or {above}" if below else str(above)
        raise InputError(f"global_batch {global_batch} does not split evenly over {world} ranks: take {near}")
    local = global_batch // world
    return slice(rank * local, (rank + 1) * local)


def eval_slice(n: int, rank: int, world: int) -> slice:
    """The part of n samples that one rank evaluates: together every sample exactly once, sizes differing by at most 1.

    Nothing is padded or repeated; with fewer samples than ranks some slices are empty.
    """
    _check_rank(rank, world)
    return slice(n * rank // world, n * (rank + 1) // world)


def _check_rank(rank: int, world: int) -> None:
    if not 0 <= rank < world:
        raise InputError(f"rank must be 0..world-1, got rank {rank} of {world}")


def _ranges(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Concatenate start .. start+size of each shard."""
    before = np.cumsum(sizes) - sizes
    return np.arange(sizes.sum(), dtype=np.int64) + np.repeat(starts - before, sizes)


def _remember(cache: OrderedDict, key, value) -> None:
    cache[key] = value
    while len(cache) > _KEPT_BLOCKS:
        cache.popitem(last=False)
