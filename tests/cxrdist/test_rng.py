"""Counter-based numbers depend on their place only."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cxrdist import rng


@given(st.integers(0, 2**63), st.integers(0, 100), st.integers(0, 2**40), st.integers(1, 30), st.data())
def test_any_part_of_the_rows_has_the_numbers_of_the_whole(seed, stream, step, columns, data):
    whole = rng.uniform(seed, stream, step, 40, columns)
    start = data.draw(st.integers(0, 39))
    stop = data.draw(st.integers(start, 40))
    assert np.array_equal(rng.uniform(seed, stream, step, slice(start, stop), columns), whole[start:stop])
    rows = np.array(data.draw(st.lists(st.integers(0, 39), max_size=5)), dtype=np.int64)
    assert np.array_equal(rng.uniform(seed, stream, step, rows, columns), whole[rows])


def test_the_numbers_are_philox_of_seed_stream_step_and_row():
    """A number worked out once by numpy's documented Philox; it must never change, or old runs could not resume."""
    block = np.random.Philox(key=np.array([7, 3], dtype=np.uint64), counter=np.array([5, 11, 0, 0], dtype=np.uint64))
    expected = (block.random_raw(4) >> np.uint64(11)) * 2.0**-53
    assert np.array_equal(rng.uniform(7, 3, 11, slice(5, 6), 4)[0], expected)
    assert rng.uniform(0, 1, 0, 1, 1)[0, 0] == 0.8133540609793564


def test_changing_seed_stream_or_step_changes_every_number():
    base = rng.uniform(1, 1, 1, 50, 4)
    for other in (rng.uniform(2, 1, 1, 50, 4), rng.uniform(1, 2, 1, 50, 4), rng.uniform(1, 1, 2, 50, 4)):
        assert not (base == other).any()


def test_numbers_are_uniform_and_normal_as_promised():
    u = rng.uniform(0, 1, 0, 50_000, 4)
    assert u.min() >= 0 and u.max() < 1
    assert np.allclose(np.histogram(u, 10, (0, 1))[0] / u.size, 0.1, atol=0.003)
    n = rng.normal(0, 2, 0, 100_001)
    assert n.shape == (100_001,) and abs(n.mean()) < 0.01 and abs(n.std() - 1) < 0.01 and np.isfinite(n).all()


def test_an_order_holds_every_number_once():
    assert sorted(rng.order(3, 4, 5, 100)) == list(range(100))
    assert not np.array_equal(rng.order(3, 4, 5, 100), rng.order(3, 4, 6, 100))


def test_mix_tells_words_and_their_order_apart():
    assert len({rng.mix(1, 2, 3), rng.mix(1, 3, 2), rng.mix(2, 1, 3), rng.mix(1, 2)}) == 4
    assert 0 <= rng.mix(2**63 - 1, 5) < 2**63
