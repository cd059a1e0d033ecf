"""Where a curve over the share of labels reaches a value."""

from __future__ import annotations

import numpy as np
import pytest

from results.stats.influence import Influence
from results.stats.saved_labels import Point, crossing, isotonic, reached

SHARES = (0.01, 0.1, 1.0)


def point(share: float, value: float, *, spread: float = 0.0, seeds: int = 1, noise: int = 0) -> Point:
    """A point whose patients' influences are normal, `spread` the standard error of the value."""
    effects = np.random.default_rng(noise).normal(size=400)
    effects = spread * (effects - effects.mean()) / np.sqrt((effects**2).sum())
    return Point(share=share, runs=[Influence(value=value, patients=effects) for _ in range(seeds)])


def test_the_crossing_is_interpolated_on_the_logarithm_of_the_share() -> None:
    found = reached([point(s, v) for s, v in zip(SHARES, (0.6, 0.7, 0.8), strict=True)], point(0.01, 0.75))
    assert found.share == pytest.approx(10**-0.5)
    assert (found.low, found.high) == pytest.approx((found.share, found.share)), "nothing is uncertain here"


@pytest.mark.parametrize(("value", "share"), [(0.5, 0.0), (0.6, 0.01), (0.7, 0.1), (0.8, 1.0), (0.81, np.inf)])
def test_values_at_points_and_beyond_the_curve(value: float, share: float) -> None:
    curve = [point(s, v) for s, v in zip(SHARES, (0.6, 0.7, 0.8), strict=True)]
    assert reached(curve, point(0.01, value)).share == pytest.approx(share)


def test_errors_that_both_curves_share_cancel() -> None:
    curve = [point(s, v, spread=0.03) for s, v in zip(SHARES, (0.6, 0.7, 0.8), strict=True)]
    same = reached(curve, point(0.01, 0.75, spread=0.03))
    other = reached(curve, point(0.01, 0.75, spread=0.03, noise=1))
    assert same.low == pytest.approx(same.high), "patients that move every point alike move no crossing"
    assert other.low is not None and other.high is not None and other.high > 2 * other.low


def test_an_interval_that_leaves_the_curve_says_so() -> None:
    curve = [point(s, v, spread=0.02, noise=n) for n, (s, v) in enumerate(zip(SHARES, (0.6, 0.7, 0.8), strict=True))]
    found = reached(curve, point(0.01, 0.795, spread=0.02, noise=9))
    assert found.high == np.inf and found.low is not None and 0.1 < found.low < 1.0


def test_a_dip_of_the_curve_is_no_crossing() -> None:
    x = np.log(SHARES)
    assert crossing(x, np.array([[0.7, 0.6, 0.8]]), np.array([[0.68]]))[0] == pytest.approx(
        np.exp(x[1] + (0.68 - 0.65) / 0.15 * (x[2] - x[1]))
    )


def test_isotonic_curves_are_those_of_scikit_learn() -> None:
    from sklearn.isotonic import isotonic_regression

    curves = np.random.default_rng(0).normal(size=(50, 6))
    wanted = np.stack([isotonic_regression(curve) for curve in curves])
    np.testing.assert_allclose(isotonic(curves), wanted, atol=1e-12)
