"""Counter-based numbers depend on their place only."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxrdist.core import rng
from cxrdist.core.augment_config import AugmentConfig
from cxrdist.core.augment_params import Recipe

PINNED = {
    "AUGMENT": 0.28066739401005014,
    "NOISE": 0.6768398859631632,
    "POOL": 0.28921526665502095,
    "DROPOUT": 0.19946242791491786,
    "VALIDATION": 0.3701093564434016,
    "WATCH": 0.9282213924380807,
    "PARTNER": 0.8229886214216648,
    "AUGMENT of the second view": 0.9523273230157423,
    "search": 0.7504596604656788,
}
ORDER = [2, 0, 3, 4, 6, 1, 7, 5]
NORMAL = [1.8155482, 1.5433245, 0.5021067, -0.844983]
MIXED = [1723619437709040859, 6863543797694462884]
VIEWS = [
    [
        0.7916345,
        0.0326269,
        0.0172736,
        -0.0351222,
        0.7353925,
        0.0127332,
        0.0,
        0.0,
        0.1936223,
        0.249862,
        0.3926231,
        0.746194,
        0.0444683,
        0.5541008,
    ],
    [
        -0.6681504,
        -0.0129173,
        -0.2965162,
        -0.0142094,
        0.6073936,
        -0.139101,
        0.0,
        -0.0293655,
        0.0,
        0.0,
        0.0,
        0.0,
        0.1162379,
        0.696733,
    ],
]


@given(st.integers(0, 2**63), st.integers(0, 100), st.integers(0, 2**40), st.integers(1, 4), st.data())
def test_any_part_of_the_rows_has_the_numbers_of_the_whole(seed, stream, step, columns, data):
    whole = rng.uniform(seed, stream, step, 40, columns)
    start = data.draw(st.integers(0, 39))
    stop = data.draw(st.integers(start, 40))
    assert np.array_equal(rng.uniform(seed, stream, step, slice(start, stop), columns), whole[start:stop])
    rows = np.array(data.draw(st.lists(st.integers(0, 39), max_size=5)), dtype=np.int64)
    assert np.array_equal(rng.uniform(seed, stream, step, rows, columns), whole[rows])


def test_the_numbers_are_philox_of_seed_stream_step_and_row():
    """A number worked out once by numpy's documented Philox; it must never change, or old runs could not resume."""
    place = np.array([5 * rng.ROOM // 4, 11, 0, 0], dtype=np.uint64)
    block = np.random.Philox(key=np.array([7, 3], dtype=np.uint64), counter=place)
    expected = (block.random_raw(4) >> np.uint64(11)) * 2.0**-53
    assert np.array_equal(rng.uniform(7, 3, 11, slice(5, 6), 4)[0], expected)
    assert rng.uniform(0, 1, 0, 1, 1)[0, 0] == 0.8133540609793564


def test_a_further_column_leaves_the_numbers_of_the_others():
    for stream in (rng.Stream.AUGMENT, rng.Stream.AUGMENT + 1, rng.Stream.VALIDATION, 900):
        whole = rng.uniform(3, stream, 7, 5, rng.ROOM)
        for columns in (1, 4, 25, 28, 29, 33, rng.ROOM - 1):
            assert np.array_equal(rng.uniform(3, stream, 7, 5, columns), whole[:, :columns])
    with pytest.raises(ValueError, match="65 numbers a row, but stream 1 has room for 64"):
        rng.uniform(3, rng.Stream.AUGMENT, 7, 5, 65)


def test_every_stream_is_pinned():
    """Third row's second number of each stream. A change here means that no earlier run can be made again."""
    found = {stream.name: float(rng.uniform(1, stream, 2, slice(2, 3), 2)[0, 1]) for stream in rng.Stream}
    found["AUGMENT of the second view"] = float(rng.uniform(1, rng.Stream.AUGMENT + 1, 2, slice(2, 3), 2)[0, 1])
    found["search"] = float(rng.uniform(1, 900, 2, slice(2, 3), 2)[0, 1])
    assert found == PINNED
    assert rng.order(5, rng.Stream.WATCH, 1, 8).tolist() == ORDER
    assert rng.normal(0, rng.Stream.NOISE, 0, 4).tolist() == pytest.approx(NORMAL, abs=1e-6)
    assert [rng.mix(1, 2, 3), rng.mix(7)] == MIXED


def test_the_draws_of_a_view_are_pinned():
    """What the numbers become: the two views of the second row of step 7."""
    recipe = Recipe(AugmentConfig(), 0.5)
    for view, expected in enumerate(VIEWS):
        drawn = recipe.draw(3, 7, slice(1, 2), view)
        found = [*drawn.theta[0].ravel(), drawn.sigma[0], drawn.noise[0], *drawn.box[0], *drawn.table[0, [60, 200]]]
        assert [float(value) for value in found] == pytest.approx(expected, abs=1e-6)


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
