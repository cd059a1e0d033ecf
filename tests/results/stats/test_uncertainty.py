"""Intervals and tests over patients and seeds, against SciPy, statsmodels' formulas written out, and known limits."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from results.stats import uncertainty
from results.stats.influence import Influence, influence
from results.stats.uncertainty import Components, bounds, components, difference, interval


def run(value: float, patients: np.ndarray, **more: float) -> Influence:
    return Influence(value=value, patients=patients, **more)


def binary(found: int, positives: int, negatives: int = 50) -> Influence:
    truth = np.repeat([True, False], [positives, negatives])
    score = np.zeros(len(truth))
    score[:found] = 0.9
    one = influence("recall", truth, score, np.arange(len(truth)), 0.5)
    assert one is not None
    return one


@pytest.mark.parametrize(("found", "positives"), [(0, 4), (1, 7), (9, 10), (30, 30), (61, 200)])
def test_interval_of_a_proportion_is_wilsons(found: int, positives: int) -> None:
    expected = scipy_stats.binomtest(found, positives).proportion_ci(method="wilson")
    assert interval([binary(found, positives)]) == pytest.approx((expected.low, expected.high))


def test_components_are_obuchowskis_and_rockettes_covariance_and_the_variance_between_seeds() -> None:
    effects = np.random.default_rng(0).normal(size=(4, 60)) + np.random.default_rng(1).normal(size=60)
    values = [0.70, 0.74, 0.69, 0.73]
    found = components([run(value, effect) for value, effect in zip(values, effects, strict=True)])
    covariance = effects @ effects.T
    shared = (covariance.sum() - np.trace(covariance)) / 12
    interaction = np.trace(covariance) / 4 - shared
    assert found.patients == pytest.approx(shared + uncertainty.LEAST * interaction / 4)
    assert found.seeds == 0, "these values differ less than their patients explain"
    found = components([run(10 * value, effect) for value, effect in zip(values, effects / 1e3, strict=True)])
    assert found.variance == pytest.approx(shared / 1e6 + np.var(values, ddof=1) * 100 / 4) and found.seed_freedom == 3
    assert found.value == pytest.approx(10 * np.mean(values))


def test_seeds_of_one_value_that_miss_other_patients_have_an_interval() -> None:
    truth = np.repeat([True, False], [30, 30])
    scores = np.full((3, 60), 0.1)
    scores[:, :30] = 0.9
    for seed, score in enumerate(scores):
        score[3 * seed : 3 * seed + 3] = 0.1
    runs = [influence("recall", truth, score, np.arange(60), 0.5) for score in scores]
    low, high = interval([one for one in runs if one is not None])
    assert low is not None and high is not None and high - low > 0.05


def test_seeds_that_agree_leave_the_interval_over_patients() -> None:
    one = run(0.8, np.random.default_rng(0).normal(0, 0.004, 100), boundary=100.0)
    assert interval([one] * 5) == pytest.approx(interval([one]))
    low, high = interval([one] * 5)
    assert low is not None and high is not None and high - low > 0.1


def test_seeds_that_scatter_widen_the_interval() -> None:
    effect = np.random.default_rng(0).normal(0, 0.001, 100)
    tight = interval([run(value, effect, boundary=100.0) for value in (0.80, 0.80, 0.80)])
    wide = interval([run(value, effect, boundary=100.0) for value in (0.75, 0.80, 0.85)])
    assert tight[0] is not None and wide[0] is not None and wide[1] is not None
    assert wide[0] < tight[0] - 0.05 and wide[1] > 0.85


def test_quantile_is_cochrans_and_coxs() -> None:
    t = scipy_stats.t.ppf(0.975, [2, 1e9])
    parts = Components(value=0.8, patients=3.0, patient_freedom=np.inf, seeds=1.0, seed_freedom=2)
    assert uncertainty.critical(parts) == pytest.approx((t[0] + 3 * t[1]) / 4)
    only = Components(value=0.8, patients=0.0, patient_freedom=np.inf, seeds=1.0, seed_freedom=2)
    assert uncertainty.critical(only) == pytest.approx(t[0])
    none = Components(value=0.8, patients=1.0, patient_freedom=7, seeds=0.0, seed_freedom=2)
    assert uncertainty.critical(none) == pytest.approx(scipy_stats.t.ppf(0.975, 7))


def test_bounds_keep_to_zero_and_one_and_never_have_no_width() -> None:
    for value in (0.0, 0.002, 0.5, 0.999, 1.0):
        parts = Components(value=value, patients=0.01, patient_freedom=4)
        low, high = bounds(parts, 6.0)
        assert low is not None and high is not None and 0 <= low <= value <= high <= 1 and high - low > 0.1
    nothing = Components(value=0.3, patients=0.0, patient_freedom=4)
    assert bounds(nothing, 6.0) == bounds(nothing, None) == (None, None)


def test_test_of_a_proportion_is_mcnemars_with_as_much_freedom_as_patients_disagree() -> None:
    truth = np.repeat([True, False], [40, 20])
    first, second = np.full(60, 0.1), np.full(60, 0.1)
    first[:12], second[10:15] = 0.9, 0.9  # 10 found by the first alone, 3 by the second alone, 2 by both
    arms = [[one] for one in (influence("recall", truth, s, np.arange(60), 0.5) for s in (first, second)) if one]
    found = difference(arms[0], arms[1], by_seed=True)
    statistic = 7 / np.sqrt(13)  # (b - c) / sqrt(b + c)
    assert found.value == pytest.approx(7 / 40)
    at_most, at_least = (2 * scipy_stats.t.sf(statistic, freedom) for freedom in (9, 13))
    assert at_least <= found.p <= at_most
    exact = scipy_stats.binomtest(3, 13).pvalue
    assert found.p == pytest.approx(exact, abs=0.03)


def test_p_is_the_level_at_which_the_interval_reaches_zero() -> None:
    generator = np.random.default_rng(2)
    for scale in (0.002, 0.02, 0.2):
        arms = [[run(0.7 + generator.normal(0, scale), generator.normal(0, 0.01, 80)) for _ in range(3)] for _ in "ab"]
        found = difference(arms[0], arms[1], by_seed=True)
        assert (found.p < 0.05) == (not found.low <= 0 <= found.high)


def test_without_spread_over_patients_the_test_is_scipys_paired_t() -> None:
    values = np.random.default_rng(6).normal(0.8, 0.01, (2, 4))
    nothing = np.zeros(50)
    arms = [[run(value, nothing, boundary=1e12) for value in arm] for arm in values]
    found = difference(arms[0], arms[1], by_seed=True)
    expected = scipy_stats.ttest_rel(values[0], values[1])
    assert found.p == pytest.approx(expected.pvalue, rel=1e-4)
    between = expected.confidence_interval()
    assert (found.low, found.high) == pytest.approx((between.low, between.high), rel=1e-4)


def test_p_values_do_not_bottom_out() -> None:
    truth = np.arange(2000) % 2 == 0
    generator = np.random.default_rng(0)
    scores = [1 / (1 + np.exp(-(gain * truth + generator.normal(size=2000)))) for gain in (3.0, 0.2)]
    arms = [[influence("auroc", truth, score, np.arange(2000))] for score in scores]
    found = difference([arms[0][0]], [arms[1][0]], by_seed=True)  # type: ignore[list-item]
    assert 0 < found.p < 1e-6, "bold among a million comparisons"


def test_equal_models_do_not_differ() -> None:
    one = binary(5, 10)
    assert difference([one], [one], by_seed=True).p == 1.0
    assert difference([one, one], [one, one], by_seed=True).p == 1.0


def test_handful_of_positives_decides_nothing() -> None:
    first, second = binary(3, 3), binary(0, 3)
    assert difference([first], [second], by_seed=True).p > 0.1
    assert difference([first] * 3, [second] * 3, by_seed=True).p > 0.1


def test_noise_that_arms_share_cancels_by_seed_and_by_patient() -> None:
    generator = np.random.default_rng(0)
    shared, luck = generator.normal(0, 0.01, 200), generator.normal(0, 0.05, 4)
    arms = [
        [run(base + draw, shared + generator.normal(0, 0.001, 200), boundary=1e9) for draw in luck]
        for base in (0.80, 0.72)
    ]
    assert difference(arms[0], arms[1], by_seed=True).p < 0.01
    assert difference(arms[0], arms[1], by_seed=False).p > 0.05, "seeds that are not the same do not pair"
