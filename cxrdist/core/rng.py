"""Counter-based random numbers: a number is a function of (seed, stream, step, row, column) and nothing else.

Every rank computes the rows it needs; no state is carried from step to step, so a resumed run and a run on another
number of ranks draw the same numbers. The generator is Philox-4x64-10 (Salmon et al., "Parallel random numbers: as
easy as 1, 2, 3", SC 2011) as numpy implements it. Only its raw 64-bit words are used: numpy keeps those stable for
ever, which it does not promise for the distributions built on top.

Shapes: R rows asked for, K numbers per row.
"""

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What a stream of numbers is for; numbers of different streams are independent."""

    AUGMENT = 1  # one per view: AUGMENT + view, views 0..15
    NOISE = 32
    POOL = 33
    DROPOUT = 34
    PARTNER = 35
    VALIDATION = 64  # one per view, as AUGMENT
    WATCH = 96


_WORDS = 4  # 64-bit words per Philox block
ROOM = 64
"""Numbers that every row of a stream has, used or not. A row begins at the same counter however many of its numbers are
asked for, so that a new decision (a further column, up to this many) leaves all earlier ones as they were."""
_NARROW: dict[int, int] = {Stream.POOL: 4, Stream.WATCH: 4, Stream.PARTNER: 4}
"""Streams of long tables with one column. No other room may change either: runs could not be made again."""


def _raw(seed: int, stream: int, step: int, first_block: int, blocks: int) -> np.ndarray:
    key = np.array([seed & (2**64 - 1), int(stream)], dtype=np.uint64)
    counter = np.array([first_block, step, 0, 0], dtype=np.uint64)
    return np.random.Philox(key=key, counter=counter).random_raw(blocks * _WORDS)


def uniform(seed: int, stream: int, step: int, rows: int | slice | np.ndarray, columns: int) -> np.ndarray:
    """Uniform numbers in [0, 1) for some rows of a (rows x columns) table that exists for every step.

    Args:
        seed: the run's seed.
        stream: a `Stream` (plus a view number where the stream has one per view).
        step: the optimiser step (or epoch) that the numbers belong to, >= 0.
        rows: a count (rows 0..rows-1), a slice with start and stop, or an int array of row numbers.
        columns: K, numbers per row, at most the stream's `ROOM`; fewer are the first of more.

    Returns:
        float64 (R, K), 53 random bits each.

    Raises:
        ValueError: more columns than a row has room for.
    """
    room = _NARROW.get(stream, ROOM)
    if columns > room:
        raise ValueError(f"{columns} numbers a row, but stream {int(stream)} has room for {room}")
    blocks = room // _WORDS
    if isinstance(rows, slice):
        first, count = rows.start or 0, rows.stop - (rows.start or 0)
    elif isinstance(rows, int):
        first, count = 0, rows
    else:
        rows = np.asarray(rows, dtype=np.int64)
        if rows.size == 0:
            return np.empty((0, columns))
        first = int(rows.min())
        table = uniform(seed, stream, step, slice(first, int(rows.max()) + 1), columns)
        return table[rows - first]
    raw = _raw(seed, stream, step, first * blocks, count * blocks).reshape(count, room)[:, :columns]
    return _fractions(raw)


def _fractions(words: np.ndarray) -> np.ndarray:
    """The upper 53 bits of each 64-bit word, as a number in [0, 1)."""
    return (words >> np.uint64(11)) * 2.0**-53


def normal(seed: int, stream: int, step: int, count: int) -> np.ndarray:
    """Standard normal numbers, float32 (count,), by the Box-Muller transform of the stream's uniform numbers."""
    half = -(-count // 2)
    u = _fractions(_raw(seed, stream, step, 0, -(-2 * half // _WORDS))[: 2 * half])
    radius = np.sqrt(-2.0 * np.log1p(-u[:half]))
    angle = 2.0 * np.pi * u[half:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count].astype(np.float32)


def order(seed: int, stream: int, step: int, count: int) -> np.ndarray:
    """A random order of 0..count-1, int64 (count,): the ranks of the stream's numbers."""
    return np.argsort(uniform(seed, stream, step, count, 1)[:, 0], kind="stable")


def mix(*words: int) -> int:
    """One 63-bit number from several, for seeding torch's own generator (dropout, stochastic depth) per step."""
    state = 0
    for word in words:
        state = int(_raw(word, state & 0xFFFFFFFF, (state >> 32) & 0xFFFFFFFF, 0, 1)[0])
    return state & (2**63 - 1)
