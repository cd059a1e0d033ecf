"""Which rows of a plan form which tar, and which piece of it."""

from __future__ import annotations

from dataclasses import dataclass

from shards.convert.plan import Plan

CHUNK = 64
"""Samples per chunk: small enough to keep all cores busy on one tar, large enough to make few files."""


@dataclass(frozen=True)
class Shard:
    """Rows first to last (excluded) of the plan form the tar `name`.tar."""

    name: str
    split: str
    first: int
    last: int

    def chunks(self) -> list[tuple[str, int, int]]:
        """Return (file name, first row, last row) of its chunks."""
        return [
            (f"{self.name}.{number:04d}", first, min(first + CHUNK, self.last))
            for number, first in enumerate(range(self.first, self.last, CHUNK))
        ]


def layout(plan: Plan, shard_size: int) -> list[Shard]:
    """Return the tars of a plan: per split as few as `shard_size` allows, of nearly equal length."""
    shards: list[Shard] = []
    start = 0
    for split, length in sorted(plan.split_counts.items()):
        count = -(-length // shard_size)
        bounds = [start + length * number // count for number in range(count + 1)]
        shards += [
            Shard(f"{split}-{number:06d}", split, first, last)
            for number, (first, last) in enumerate(zip(bounds, bounds[1:], strict=False))
        ]
        start += length
    return shards
