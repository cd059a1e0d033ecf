"""Intervals and tests against scikit-learn, SciPy and slow implementations written here from the papers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from results import stats
from results.delong import delong, delong_paired
from results.errors import InputError
from results.metrics import METRICS, compute


def draw(n: int, labels: int, seed: int = 0, patients: int | None = None, step: float | None = None):
    generator = np.random.default_rng(seed)
    owner = np.sort(generator.integers(0, patients, n)) if patients else np.arange(n)
    owner = np.unique(owner, return_inverse=True)[1]
    truth = (generator.random((n, labels)) < np.linspace(0.15, 0.5, labels)).astype(np.int8)
    shared = generator.normal(size=(owner.max() + 1, labels))[owner]
    score = 1 / (1 + np.exp(-(truth + 0.7 * shared + generator.normal(size=(n, labels)))))
    return truth, np.round(score / step) * step if step else score, owner


@pytest.mark.parametrize("step", [None, 0.1], ids=["distinct scores", "ties"])
def test_bootstrap_equals_metrics_of_images_repeated_by_hand(step: float | None) -> None:
    truth, score, patients = draw(60, 3, patients=25, step=step)
    truth[::7, 1] = -1
    cuts = [0.5, 0.6, None]
    found = stats.bootstrap(truth, score, patients, thresholds=cuts, n_boot=20, seed=4)
    counts = np.concatenate(list(stats.resample_counts(patients.max() + 1, 20, 4)))
    for b, j in itertools.product(range(20), range(3)):
        rows = np.repeat(np.arange(60), counts[b, patients])
        rows = rows[truth[rows, j] >= 0]
        expected = compute(truth[rows, j], score[rows, j], cuts[j])
        for name in METRICS:
            value = expected[name]
            assert found[name][b, j] == pytest.approx(math.nan if value is None else value, abs=1e-12, nan_ok=True), (
                name
            )


def test_resamples_draw_as_many_patients_as_there_are_and_repeat_with_their_seed() -> None:
    counts = np.concatenate(list(stats.resample_counts(40, 500, 1)))
    assert (counts.sum(axis=1) == 40).all() and counts.shape == (500, 40)
    assert counts.mean() == pytest.approx(1.0) and counts.var() == pytest.approx(1 - 1 / 40, abs=0.05)
    assert (counts == np.concatenate(list(stats.resample_counts(40, 500, 1)))).all()
    assert (counts != np.concatenate(list(stats.resample_counts(40, 500, 2)))).any()


def test_resamples_do_not_depend_on_the_size_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate(list(stats.resample_counts(30, 50, 3)))
    monkeypatch.setattr(stats, "BLOCK_ELEMENTS", 100)
    assert (np.concatenate(list(stats.resample_counts(30, 50, 3))) == whole).all()


def test_interval_over_patients_is_wider_than_over_images_that_repeat_each_other() -> None:
    truth, score, _ = draw(100, 1, seed=2)
    repeated_truth, repeated_score = np.repeat(truth, 5, axis=0), np.repeat(score, 5, axis=0)
    patients = np.repeat(np.arange(100), 5)
    by_patient = stats.bootstrap(repeated_truth, repeated_score, patients, metrics=("auroc",), n_boot=400)["auroc"]
    alone = stats.bootstrap(truth, score, np.arange(100), metrics=("auroc",), n_boot=400)["auroc"]
    by_image = stats.bootstrap(repeated_truth, repeated_score, np.arange(500), metrics=("auroc",), n_boot=400)["auroc"]
    assert by_patient == pytest.approx(alone)  # five copies of an image are no more evidence than one
    assert by_image.std() < 0.6 * by_patient.std()


def test_bootstrap_and_delong_agree_on_the_error_of_an_auroc() -> None:
    truth, score, patients = draw(600, 1, seed=3)
    _, variance = delong(truth[:, 0] == 1, score[:, 0])
    resampled = stats.bootstrap(truth, score, patients, metrics=("auroc",), n_boot=2000)["auroc"][:, 0]
    assert resampled.std() == pytest.approx(math.sqrt(variance), rel=0.06)


@pytest.mark.slow
def test_ninety_five_percent_intervals_hold_the_truth_about_as_often() -> None:
    hits, trials, auroc = 0, 300, 0.76024994  # normal scores one apart: Phi(1 / sqrt 2)
    for seed in range(trials):
        generator = np.random.default_rng(seed)
        truth = (np.arange(240) % 3 == 0).astype(np.int8)
        score = 1 / (1 + np.exp(-(truth + generator.normal(size=240))))
        resampled = stats.bootstrap(truth[:, None], score[:, None], np.arange(240), metrics=("auroc",), n_boot=400)
        low, high = stats.interval(resampled["auroc"][:, 0])
        assert low is not None and high is not None
        hits += low <= auroc <= high
    assert 0.91 <= hits / trials <= 0.98


def test_interval_is_none_when_most_resamples_are_undefined() -> None:
    assert stats.interval(np.array([0.5, np.nan, np.nan, 0.6])) == (None, None)
    assert stats.interval(np.array([])) == (None, None)
    low, high = stats.interval(np.array([0.5, 0.6, np.nan, 0.7]))
    assert low == pytest.approx(0.505) and high == pytest.approx(0.695)


def pairwise_delong(truth: np.ndarray, scores: list[np.ndarray]) -> tuple[list[float], np.ndarray]:
    """DeLong et al. 1988, equations 2 to 5, by comparing every positive with every negative."""

    def kernel(x: float, y: float) -> float:
        return 1.0 if y < x else 0.5 if y == x else 0.0

    v10, v01, areas = [], [], []
    for score in scores:
        table = np.array([[kernel(x, y) for y in score[~truth]] for x in score[truth]])
        v10.append(table.mean(axis=1))
        v01.append(table.mean(axis=0))
        areas.append(float(table.mean()))
    return areas, np.cov(v10) / truth.sum() + np.cov(v01) / (~truth).sum()


@pytest.mark.parametrize("step", [None, 0.1], ids=["distinct scores", "ties"])
def test_delong_equals_the_papers_pairwise_definition(step: float | None) -> None:
    truth, score, _ = draw(90, 2, seed=5, step=step)
    one = truth[:, 0] == 1
    areas, covariance = pairwise_delong(one, [score[:, 0], score[:, 1]])
    area, variance = delong(one, score[:, 0])
    assert (area, variance) == (pytest.approx(areas[0]), pytest.approx(covariance[0, 0]))
    found = delong_paired(one, score[:, 0], score[:, 1])
    error = math.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert found.value == pytest.approx(areas[0] - areas[1])
    assert found.p == pytest.approx(2 * scipy_stats.norm.sf(abs(areas[0] - areas[1]) / error))
    assert (found.low, found.high) == (
        pytest.approx(found.value - 1.96 * error, abs=1e-4),
        pytest.approx(found.value + 1.96 * error, abs=1e-4),
    )


def test_clustered_delong_equals_obuchowskis_sums_written_out() -> None:
    truth, score, patients = draw(80, 1, seed=6, patients=30)
    one, values = truth[:, 0] == 1, score[:, 0]
    m, n = int(one.sum()), int((~one).sum())
    x = {i: np.mean([(values[i] > v) + 0.5 * (values[i] == v) for v in values[~one]]) for i in np.flatnonzero(one)}
    y = {i: np.mean([(v > values[i]) + 0.5 * (v == values[i]) for v in values[one]]) for i in np.flatnonzero(~one)}
    area = np.mean(list(x.values()))
    s10 = s01 = s11 = 0.0
    with_x, with_y = set(), set()
    for patient in set(patients.tolist()):
        mine = np.flatnonzero(patients == patient)
        a = sum(x[i] - area for i in mine if i in x)
        b = sum(y[i] - area for i in mine if i in y)
        with_x |= {patient} if any(i in x for i in mine) else set()
        with_y |= {patient} if any(i in y for i in mine) else set()
        s10, s01, s11 = s10 + a * a, s01 + b * b, s11 + a * b
    i10, i01, clusters = len(with_x), len(with_y), len(set(patients.tolist()))
    expected = (
        i10 / (i10 - 1) * s10 / m**2 + i01 / (i01 - 1) * s01 / n**2 + 2 * clusters / (clusters - 1) * s11 / (m * n)
    )
    found = delong(one, values, patients)
    assert found == (pytest.approx(area), pytest.approx(expected))
    assert delong(one, values, np.arange(80)) == pytest.approx(delong(one, values))


def test_delong_of_two_equal_rankings_is_no_difference() -> None:
    truth, score, _ = draw(50, 1)
    found = delong_paired(truth[:, 0] == 1, score[:, 0], score[:, 0] / 2)
    assert (found.value, found.p) == (0.0, 1.0)


def test_delong_needs_two_of_each_class() -> None:
    with pytest.raises(InputError, match="two positives"):
        delong(np.array([True, False, False]), np.array([0.1, 0.2, 0.3]))


def test_paired_difference_sees_through_noise_that_both_share() -> None:
    generator = np.random.default_rng(0)
    common = generator.normal(0, 0.05, 1000)
    first = (0.82 + common + generator.normal(0, 0.002, 1000))[None]
    second = (0.80 + common + generator.normal(0, 0.002, 1000))[None]
    found = stats.paired_difference(first, second, 0.02)
    assert found is not None and found.p == pytest.approx(2 / 1001) and 0.01 < found.low < 0.02 < found.high < 0.03
    independent = stats.paired_difference(first, second[:, ::-1], 0.02)
    assert independent is not None and independent.p > 0.5


def test_paired_bootstrap_rejects_true_null_hypotheses_rarely() -> None:
    rejected = 0
    for seed in range(100):
        generator = np.random.default_rng(seed)
        truth = (generator.random(150) < 0.4).astype(np.int8)[:, None]
        arms = [
            stats.bootstrap(
                truth,
                1 / (1 + np.exp(-(truth + generator.normal(size=(150, 1))))),
                np.arange(150),
                metrics=("auroc",),
                n_boot=200,
            )["auroc"].T
            for _ in range(2)
        ]
        found = stats.paired_difference(arms[0], arms[1], 0.0)
        assert found is not None
        rejected += found.p < 0.05
    assert rejected <= 12


@pytest.mark.parametrize("seeds", [(2, 2), (3, 3), (5, 5), (3, 5)])
def test_seeds_that_differ_by_luck_alone_are_rarely_called_different(seeds: tuple[int, int]) -> None:
    rejected, trials = 0, 600
    for number in range(trials):
        generator = np.random.default_rng(number)
        patients = generator.normal(0, 0.002, 400)  # little beside the spread over seeds
        arms = [0.8 + generator.normal(0, 0.02, count) for count in seeds]
        resampled = [arm[:, None] + patients * generator.uniform(0.5, 1, (len(arm), 1)) for arm in arms]
        found = stats.paired_difference(resampled[0], resampled[1], float(arms[0].mean() - arms[1].mean()))
        assert found is not None
        rejected += found.p < 0.05
        assert (found.p < 0.05) == (not found.low <= 0 <= found.high)
    assert rejected <= 0.08 * trials


def test_one_seed_of_no_spread_leaves_the_patients_interval() -> None:
    generator = np.random.default_rng(5)
    first = 0.82 + generator.normal(0, 0.01, (1, 4000))
    alone = stats.paired_difference(first, np.full((1, 4000), 0.8), 0.02)
    thrice = stats.paired_difference(np.repeat(first, 3, axis=0), np.full((3, 4000), 0.8), 0.02)
    assert alone is not None and thrice is not None
    assert (thrice.low, thrice.high) == pytest.approx((alone.low, alone.high), abs=1e-3)
    assert thrice.p == pytest.approx(alone.p, abs=0.01)


def test_paired_t_over_seeds_equals_scipys_without_spread_over_patients() -> None:
    generator = np.random.default_rng(6)
    arms = generator.normal(0.8, 0.01, (2, 4))
    first, second = (np.repeat(arm[:, None], 50, axis=1) for arm in arms)
    found = stats.paired_difference(first, second, float(arms[0].mean() - arms[1].mean()))
    expected = scipy_stats.ttest_rel(arms[0], arms[1])
    between = expected.confidence_interval()
    assert found is not None and found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx((between.low, between.high))


def test_more_seeds_widen_the_difference_by_their_own_spread() -> None:
    generator = np.random.default_rng(1)
    patients = generator.normal(0, 0.01, 2000)
    agreeing = np.stack([0.8 + patients] * 3)
    scattered = np.stack([0.75 + patients, 0.8 + patients, 0.85 + patients])
    base = np.stack([0.78 + patients] * 3)
    tight = stats.paired_difference(agreeing, base, 0.02)
    wide = stats.paired_difference(scattered, base, 0.02)
    assert tight is not None and wide is not None
    assert tight.p < 0.01 < 0.2 < wide.p


def test_holm_equals_the_textbook_and_its_definition() -> None:
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([]) == []


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(p_values: list[float]) -> None:
    corrected = stats.holm(p_values)
    for p, q in zip(p_values, corrected, strict=True):
        assert p <= q <= 1 and q <= len(p_values) * p + 1e-12 or q == pytest.approx(max(corrected))
    ordered = [q for _, q in sorted(zip(p_values, corrected, strict=True))]
    assert ordered == sorted(ordered)


@pytest.mark.parametrize("freedom", [1, 2, 5, 10, 11, 15, 29, 100, 1000])
def test_t_quantile_equals_scipy(freedom: int) -> None:
    assert stats.t_quantile(freedom) == pytest.approx(scipy_stats.t.ppf(0.975, freedom), abs=2e-5)


def test_seed_interval_equals_scipys_t_interval() -> None:
    values = [0.80, 0.83, 0.79]
    expected = scipy_stats.t.interval(0.95, 2, loc=np.mean(values), scale=scipy_stats.sem(values))
    assert stats.seed_interval(values) == pytest.approx(expected, abs=1e-6)
