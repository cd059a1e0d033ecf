"""All pairs of near hashes between two sets, by counting bits of every pair, block by block.

Every pair is looked at, its first word before the others: 2 ns each. An index over bands (multi-index hashing: Norouzi,
Punjani and Fleet, CVPR 2012) visits one pair in fifteen at these distances, so alike are chest X-rays, and takes ten
times as long to fetch them from all over the memory (benches/reports/against.md).

Legend: N hashes of one set, M of the other, P pairs, WORDS uint64 a hash.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from shards.errors import InputError

_ROWS, _COLUMNS = 64, 4096  # a block's 2 MiB of words stay in a core's cache
MOST_PAIRS = 20_000_000
"""More near pairs than this are not X-rays of different people."""


def near_pairs(
    one: np.ndarray,
    other: np.ndarray,
    *,
    most: int,
    most_coarse: int,
    threads: int,
    add: Callable[[int], None] = lambda rows: None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return row in `one`, row in `other` and distance of all near pairs, each (P,), ordered by the rows.

    Args:
        one: uint64 (N, WORDS).
        other: uint64 (M, WORDS).
        most: bits that may differ.
        most_coarse: bits that may differ in the first word.
        threads: blocks at a time; numpy lets go of Python's lock while it counts.
        add: called with the number of finished rows of `one`, in this thread.

    Raises:
        InputError: more than `MOST_PAIRS` pairs.
    """
    columns = np.ascontiguousarray(other.T)
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    total = 0
    starts = range(0, len(one), _ROWS)
    pool = ThreadPoolExecutor(threads)
    try:
        for some in pool.map(lambda start: _near_rows(one, columns, start, most, most_coarse), starts):
            total += len(some[0])
            if total > MOST_PAIRS:
                raise InputError(
                    f"more than {MOST_PAIRS:,} pairs of images look alike: these are not X-rays of different people "
                    "(one picture many times?); --decode false compares names alone"
                )
            found.append(some)
            add(min(_ROWS, len(one) - (len(found) - 1) * _ROWS))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    rows, others, distances = (np.concatenate(parts) for parts in zip(*found, strict=True)) if found else _nothing()
    return rows, others, distances


def _near_rows(
    one: np.ndarray, columns: np.ndarray, start: int, most: int, most_coarse: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The near pairs of `_ROWS` rows from `start` on; `columns` is uint64 (WORDS, M)."""
    rows = one[start : start + _ROWS]
    found = [_nothing()]
    for first in range(0, columns.shape[1], _COLUMNS):
        some = columns[:, first : first + _COLUMNS]
        coarse = np.bitwise_count(rows[:, :1] ^ some[0])
        row, column = np.divmod(np.flatnonzero(coarse <= most_coarse), some.shape[1])
        distance = np.bitwise_count(rows[row] ^ some[:, column].T).sum(axis=1, dtype=np.int64)
        near = distance <= most
        found.append((row[near] + start, column[near] + first, distance[near]))
    row, column, distance = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.lexsort((column, row))
    return row[order], column[order], distance[order]


def _nothing() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    empty = np.empty(0, np.int64)
    return empty, empty, empty
