"""Log loss, calibration slope and intercept, and temperatures."""

from __future__ import annotations

import numpy as np
import pytest

from results.stats import calibration
from results.tables.calibration import positive


def drawn(n: int, *, factor: float = 1.0, shift: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Truths drawn from probabilities, and scores whose logits are `factor` times too large and `shift` too high."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=n)
    truth = generator.random(n) < 1 / (1 + np.exp(-x))
    return truth, 1 / (1 + np.exp(-(factor * x + shift)))


def test_the_log_loss_is_scikit_learns_and_a_saturated_score_adds_no_more_than_the_clip_allows() -> None:
    from sklearn.metrics import log_loss

    truth, score = drawn(500, factor=2.0, shift=0.5)
    found = calibration.log_loss(truth, score, np.arange(500))
    assert found is not None and found.value == pytest.approx(log_loss(truth, score), rel=1e-9)
    sure = calibration.log_loss(np.array([True, False]), np.array([0.0, 0.0]), np.arange(2))
    assert sure is not None and sure.value == pytest.approx(-np.log(calibration.CLIP) / 2, abs=1e-5)
    assert calibration.log_loss(np.ones(2, bool), np.array([0.1, 0.9]), np.arange(2)) is None


@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_the_interval_of_the_log_loss_holds_the_true_one_as_often_as_it_says(factor: float) -> None:
    """Three images a patient that share most of their logit; factor 3: scores too sure, losses with a long tail."""
    generator = np.random.default_rng(7)

    def patients(n: int) -> tuple[np.ndarray, np.ndarray]:
        x = (generator.normal(size=(n, 1)) + 0.3 * generator.normal(size=(n, 3))).ravel()
        return np.repeat(generator.random(n), 3) < 1 / (1 + np.exp(-x)), 1 / (1 + np.exp(-factor * x))

    large = calibration.log_loss(*patients(300_000), np.repeat(np.arange(300_000), 3))
    assert large is not None
    held = 0
    for _ in range(600):
        found = calibration.log_loss(*patients(150), np.repeat(np.arange(150), 3))
        assert found is not None
        low, high = positive([found])
        assert low is not None and high is not None
        held += low < large.value < high
    assert 0.925 < held / 600 < 0.98, held / 600


def test_the_slope_is_that_of_an_unpenalised_logistic_regression() -> None:
    from sklearn.linear_model import LogisticRegression

    truth, score = drawn(500, factor=2.0, shift=0.5)
    x = calibration.logits(score)[:, None]
    wanted = LogisticRegression(C=1e10, tol=1e-10, max_iter=1000).fit(x, truth).coef_[0, 0]
    found = calibration.slope(truth, score, np.arange(500))
    assert found is not None and found.value == pytest.approx(wanted, rel=1e-4)


def test_scores_that_are_twice_too_extreme_have_a_slope_of_a_half_and_a_temperature_of_two() -> None:
    truth, score = drawn(20_000, factor=2.0)
    found = calibration.slope(truth, score, np.arange(len(truth)))
    assert found is not None and found.value == pytest.approx(0.5, abs=0.02)
    assert calibration.temperature(truth, score) == pytest.approx(2.0, abs=0.08)
    again = calibration.slope(truth, calibration.recalibrated(score, 2.0), np.arange(len(truth)))
    assert again is not None and again.value == pytest.approx(1.0, abs=0.04)


def test_the_intercept_says_how_much_too_high_the_logits_are() -> None:
    truth, score = drawn(20_000, shift=0.7)
    found = calibration.intercept(truth, score, np.arange(len(truth)))
    assert found is not None and found.value == pytest.approx(-0.7, abs=0.05)


def test_the_variance_over_patients_is_the_one_of_repeated_samples() -> None:
    values, variances = [], []
    for seed in range(200):
        truth, score = drawn(300, seed=seed)
        found = calibration.slope(truth, score, np.arange(300))
        assert found is not None
        values.append(found.value)
        variances.append(found.variance)
    assert np.mean(variances) == pytest.approx(np.var(values), rel=0.25)


def test_two_equal_images_of_each_patient_are_one_piece_of_evidence() -> None:
    truth, score = drawn(300)
    once = calibration.slope(truth, score, np.arange(300))
    twice = calibration.slope(np.tile(truth, 2), np.tile(score, 2), np.tile(np.arange(300), 2))
    assert once is not None and twice is not None
    assert twice.value == pytest.approx(once.value) and twice.variance == pytest.approx(once.variance, rel=1e-6)


def test_what_has_no_slope_is_none() -> None:
    truth, score = drawn(50)
    assert calibration.slope(np.zeros(50, bool), score, np.arange(50)) is None
    assert calibration.slope(truth, np.full(50, 0.3), np.arange(50)) is None
    assert calibration.slope(score > 0.5, score, np.arange(50)) is None, "the classes do not overlap"
    assert calibration.intercept(np.ones(50, bool), score, np.arange(50)) is None


def test_scores_of_zero_and_one_have_finite_results() -> None:
    truth, score = drawn(200)
    score[:3], score[3:6] = 0.0, 1.0
    found = calibration.slope(truth, score, np.arange(200))
    assert found is not None and np.isfinite(found.value) and np.isfinite(found.patients).all()
    assert np.isfinite(calibration.recalibrated(score, 0.5)).all()
