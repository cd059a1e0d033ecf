"""Intervals and tests against scikit-learn, SciPy and slow implementations written here from the papers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from results.errors import InputError
from results.stats import bootstrap, multiple_testing
from results.stats.delong import delong, delong_paired


def draw(n: int, labels: int, seed: int = 0, patients: int | None = None, step: float | None = None):
    generator = np.random.default_rng(seed)
    owner = np.sort(generator.integers(0, patients, n)) if patients else np.arange(n)
    owner = np.unique(owner, return_inverse=True)[1]
    truth = (generator.random((n, labels)) < np.linspace(0.15, 0.5, labels)).astype(np.int8)
    shared = generator.normal(size=(owner.max() + 1, labels))[owner]
    score = 1 / (1 + np.exp(-(truth + 0.7 * shared + generator.normal(size=(n, labels)))))
    return truth, np.round(score / step) * step if step else score, owner


def test_resamples_draw_as_many_patients_as_there_are_and_repeat_with_their_seed() -> None:
    counts = np.concatenate(list(bootstrap.resample_counts(40, 500, 1)))
    assert (counts.sum(axis=1) == 40).all() and counts.shape == (500, 40)
    assert counts.mean() == pytest.approx(1.0) and counts.var() == pytest.approx(1 - 1 / 40, abs=0.05)
    assert (counts == np.concatenate(list(bootstrap.resample_counts(40, 500, 1)))).all()
    assert (counts != np.concatenate(list(bootstrap.resample_counts(40, 500, 2)))).any()


def test_resamples_do_not_depend_on_the_size_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate(list(bootstrap.resample_counts(30, 50, 3)))
    monkeypatch.setattr(bootstrap, "BLOCK_ELEMENTS", 100)
    assert (np.concatenate(list(bootstrap.resample_counts(30, 50, 3))) == whole).all()


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


def test_holm_equals_the_textbook_and_its_definition() -> None:
    assert multiple_testing.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert multiple_testing.holm([]) == []


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(p_values: list[float]) -> None:
    corrected = multiple_testing.holm(p_values)
    for p, q in zip(p_values, corrected, strict=True):
        assert p <= q <= 1 and q <= len(p_values) * p + 1e-12 or q == pytest.approx(max(corrected))
    ordered = [q for _, q in sorted(zip(p_values, corrected, strict=True))]
    assert ordered == sorted(ordered)
