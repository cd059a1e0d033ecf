"""The search for near hashes finds every pair, whatever the blocks."""

from __future__ import annotations

import numpy as np
import pytest

from shards.errors import InputError
from shards.overlap import near
from shards.overlap.near import near_pairs


def flipped(words: np.ndarray, bits: list[int]) -> np.ndarray:
    out = words.copy()
    for bit in bits:
        out[bit // 64] ^= np.uint64(1 << bit % 64)
    return out


@pytest.fixture(scope="module")
def sets() -> tuple[np.ndarray, np.ndarray]:
    """Random hashes over several blocks; some of the second are copies but for 0, 48 or 49 bits, or 15 of one word."""
    rng = np.random.default_rng(0)
    one, other = (rng.integers(0, 2**64, (n, 4), dtype=np.uint64) for n in (150, 9000))
    spread = [64 + 3 * n for n in range(49)]
    for row, place, bits in ((0, 8999, []), (64, 4096, spread[:48]), (65, 4095, spread), (149, 0, list(range(15)))):
        other[place] = flipped(one[row], bits)
    other[5000] = one[0]
    return one, other


@pytest.mark.parametrize("threads", [1, 3])
def test_every_near_pair_is_found_once_and_no_other(sets: tuple[np.ndarray, np.ndarray], threads: int) -> None:
    told: list[int] = []
    found = near_pairs(*sets, most=48, most_coarse=14, threads=threads, add=told.append)
    pairs = list(zip(*(part.tolist() for part in found), strict=True))
    assert pairs == [(0, 5000, 0), (0, 8999, 0), (64, 4096, 48)]
    assert sum(told) == 150


def test_looser_limits_give_what_counting_one_by_one_gives(sets: tuple[np.ndarray, np.ndarray]) -> None:
    one, other = sets[0], sets[1][4000:5000]
    rows, columns, bits = near_pairs(one, other, most=105, most_coarse=28, threads=1)
    counted = np.array([[[int(a ^ b).bit_count() for a, b in zip(x, y, strict=True)] for y in other] for x in one[:20]])
    wanted = np.argwhere((counted.sum(axis=2) <= 105) & (counted[:, :, 0] <= 28))
    mine = rows < 20
    assert len(wanted) > 20 and np.array_equal(np.stack([rows[mine], columns[mine]], axis=1), wanted)
    assert np.array_equal(bits[mine], counted.sum(axis=2)[tuple(wanted.T)])


def test_empty_sets_have_no_pairs() -> None:
    none, some = np.empty((0, 4), np.uint64), np.zeros((3, 4), np.uint64)
    for one, other in ((none, some), (some, none), (none, none)):
        assert [len(part) for part in near_pairs(one, other, most=48, most_coarse=14, threads=2)] == [0, 0, 0]


def test_one_picture_again_and_again_is_refused_before_the_memory_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near, "MOST_PAIRS", 10_000)
    same = np.zeros((300, 4), np.uint64)
    with pytest.raises(InputError, match="more than 10,000 pairs of images look alike"):
        near_pairs(same, same, most=48, most_coarse=14, threads=2)
