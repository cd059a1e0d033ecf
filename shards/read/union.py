"""Several shard sets read as one: their samples one set after another, and an order that draws from them by weights.

Legend: n samples of all sets, S side in pixels, G global batch, K sets.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from shards.errors import InputError
from shards.read.dataset import ShardSet
from shards.read.order import Order


class ShardUnion:
    """The samples of K shard sets: positions 0..n-1, those of the first set first.

    Attributes:
        sets: the shard sets.
        size: S, the smallest of theirs.
        labels: names of the labels that all of them have, in the order of the first.
    """

    def __init__(self, sets: Sequence[ShardSet]) -> None:
        """Join sets; each stays as it is.

        Raises:
            InputError: no set at all.
        """
        if not sets:
            raise InputError("a union needs at least one shard set")
        self.sets = list(sets)
        self.size = min(shards.size for shards in self.sets)
        self.labels = tuple(name for name in self.sets[0].labels if all(name in other.labels for other in self.sets))
        self._ends = np.cumsum([len(shards) for shards in self.sets])

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def sizes(self) -> list[int]:
        """Number of samples of each set."""
        return [len(shards) for shards in self.sets]

    @property
    def shard_sizes(self) -> list[int]:
        """As `ShardSet.shard_sizes`, of all sets."""
        return [count for shards in self.sets for count in shards.shard_sizes]

    @property
    def patients(self) -> np.ndarray:
        """A number for each sample's patient, int64 (n,); patients of different sets are different ones."""
        parts, first = [], 0
        for shards in self.sets:
            codes = shards.index.patient[shards.rows].astype(np.int64)
            parts.append(codes + first)
            first += int(codes.max()) + 1 if len(codes) else 0
        return np.concatenate(parts)

    def labels_matrix(self, names: Sequence[str] | None = None) -> np.ndarray:
        """Labels of all n samples, int8 (n, L), columns in the order of `names` (None: `labels`)."""
        wanted = self.labels if names is None else names
        return np.concatenate([shards.labels_matrix(wanted) for shards in self.sets])

    def images(self, positions: np.ndarray, size: int | None = None) -> torch.Tensor:
        """Decode a batch, uint8 (B, 1, S, S); see `ShardSet.images`."""
        side = self.size if size is None else size
        out = torch.empty((len(positions), 1, side, side), dtype=torch.uint8)
        self.read_into(np.asarray(positions, dtype=np.int64), out)
        return out

    def read_into(self, positions: np.ndarray, out: torch.Tensor) -> None:
        """As `images`, into a given contiguous uint8 CPU tensor (B, 1, S, S).

        Raises:
            InputError: a position outside 0..n-1, or an image that cannot be read.
        """
        if positions.size and (positions.min() < 0 or positions.max() >= len(self)):
            raise InputError(f"positions must be 0..{len(self) - 1}, got {positions.min()}..{positions.max()}")
        owner = np.searchsorted(self._ends, positions, side="right")
        for number in np.unique(owner):
            places = np.flatnonzero(owner == number)
            local = positions[places] - (self._ends[number] - len(self.sets[number]))
            if len(places) == len(positions):
                self.sets[number].read_into(local, out)
                return
            part = torch.empty((len(places), *out.shape[1:]), dtype=torch.uint8)
            self.sets[number].read_into(local, part)
            out[torch.from_numpy(places)] = part


class WeightedOrder(Order):
    """The order of a union whose sets are drawn by weights: a pure function of (seed, step), as `Order`.

    An epoch has n samples in all, of which each set gives its share by weight, rounded by largest remainders. A set
    that gives more than it has is gone through more than once in an epoch, one that gives less goes on in the next:
    each set's samples come in permutations of the whole set, one after another, so that none is favoured.
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], *, seed: int, global_batch: int) -> None:
        """Fix the stream.

        Args:
            sizes: samples of each set, each at least 1.
            weights: relative share of each set, above 0.
            seed: as for `Order`.
            global_batch: G, as for `Order`.

        Raises:
            InputError: not one weight for each set, a weight that is not above 0, or a set without samples.
        """
        if len(weights) != len(sizes) or not all(np.isfinite(weight) and weight > 0 for weight in weights):
            raise InputError(f"{len(sizes)} shard sets need as many weights above 0, got {list(weights)}")
        if min(sizes) < 1:
            raise InputError("every shard set of a weighted union needs a sample")
        super().__init__(int(sum(sizes)), seed=seed, global_batch=global_batch)
        self.shares = _shares(self.n, weights)
        self._first = np.cumsum(sizes) - np.asarray(sizes)
        self._kept: dict[tuple[int, int], np.ndarray] = {}
        self._own = [
            Order(size, seed=seed + 7_919 * (number + 1), global_batch=max(1, share))
            for number, (size, share) in enumerate(zip(sizes, self.shares, strict=True))
        ]

    def positions(self, step: int) -> np.ndarray:
        """Samples of the global batch at a step: int64 (G,), positions in the union."""
        places = super().positions(step)
        epochs = (step * self.global_batch + np.arange(self.global_batch)) // self.n
        ends = np.cumsum(self.shares)
        owner = np.searchsorted(ends, places, side="right")
        out = np.empty_like(places)
        for epoch in np.unique(epochs):
            for number in np.unique(owner[epochs == epoch]):
                here = (epochs == epoch) & (owner == number)
                # An epoch of the union is a "step" of the set's own order, whose batch is its share.
                drawn = self._drawn(int(number), int(epoch))
                out[here] = self._first[number] + drawn[places[here] - (ends[number] - self.shares[number])]
        return out

    def _drawn(self, number: int, epoch: int) -> np.ndarray:
        """What a set gives to an epoch of the union; kept for the epochs that a batch can touch."""
        if (number, epoch) not in self._kept:
            self._kept = {key: value for key, value in self._kept.items() if key[1] >= epoch - 1}
            self._kept[number, epoch] = self._own[number].positions(epoch)
        return self._kept[number, epoch]


def _shares(n: int, weights: Sequence[float]) -> list[int]:
    """Split n by weights into whole numbers, by largest remainders; the earlier set first where they are equal."""
    exact = n * np.asarray(weights, dtype=np.float64) / np.sum(weights)
    whole = np.floor(exact).astype(np.int64)
    for number in np.argsort(-(exact - whole), kind="stable")[: n - int(whole.sum())]:
        whole[number] += 1
    return whole.tolist()
