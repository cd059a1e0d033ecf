"""Printed intervals hold the truth, and tests find nothing where there is nothing, as often as they say."""

from __future__ import annotations

import numpy as np
import pytest

from tests.results import coverage


def near(number: int) -> float:
    """Three standard errors of a share near 0.95 over so many replicates."""
    return 3 * float(np.sqrt(0.05 * 0.95 / number))


@pytest.mark.parametrize(
    ("metric", "ratio", "seeds", "several"),
    [("auroc", 0.0, 5, True), ("auroc", 1.0, 3, False), ("balanced_accuracy", 3.0, 3, False), ("auroc", 1.0, 1, False)],
)
def test_intervals_hold_the_truth_nineteen_times_of_twenty(
    metric: str, ratio: float, seeds: int, several: bool
) -> None:
    held = coverage.coverage(metric, ratio, several, seeds=[seeds], replicates=250)[seeds]
    assert 0.93 - near(250) <= held <= 0.97 + near(250)


def test_null_comparisons_are_rarely_significant() -> None:
    p = coverage.null_p_values("auroc", 1.0, False, seeds=[3], replicates=250)[3]
    assert (p < 0.05).mean() <= 0.05 + near(250)


def test_auroc_of_few_positives_is_covered() -> None:
    assert coverage.few_positives(3, 0.76, replicates=200)[0] >= 0.95 - near(200)


def test_sensitivity_near_one_is_covered() -> None:
    assert coverage.proportion(0.95, 10, True, replicates=200) >= 0.95 - near(200)


@pytest.mark.parametrize("kind", ["roc", "precision-recall"])
def test_bands_of_curves_of_few_positives_hold_the_truth(kind: str) -> None:
    found, percentiles = coverage.bands(kind, 5, replicates=100)
    assert np.nanmin(found) >= 0.93 - near(100)
    assert kind != "roc" or min(percentiles) < 0.93 - near(100)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["roc", "precision-recall"])
@pytest.mark.parametrize("positives", [3, 10, 100])
def test_bands_of_curves_hold_the_truth_at_any_number_of_positives(kind: str, positives: int) -> None:
    assert np.nanmin(coverage.bands(kind, positives)[0]) >= 0.93 - near(500)


@pytest.mark.slow
@pytest.mark.parametrize("several", [False, True], ids=["one image a patient", "several"])
@pytest.mark.parametrize("ratio", coverage.RATIOS)
@pytest.mark.parametrize("metric", coverage.LEVELS)
def test_intervals_cover_whatever_seeds_and_patients_contribute(metric: str, ratio: float, several: bool) -> None:
    held = coverage.coverage(metric, ratio, several, replicates=4000)
    assert 0.93 <= min(held.values()) and max(held.values()) <= 0.97 + near(4000) / 3, held


@pytest.mark.slow
@pytest.mark.parametrize("ratio", coverage.TEST_RATIOS)
@pytest.mark.parametrize(("metric", "several"), coverage.TESTED)
def test_false_positives_stay_below_six_percent(metric: str, several: bool, ratio: float) -> None:
    for p in coverage.null_p_values(metric, ratio, several, replicates=1500).values():
        assert (p < 0.05).mean() <= 0.06 and coverage.any_bold(p) <= 0.06 + np.sqrt(0.06 / 300)


@pytest.mark.slow
@pytest.mark.parametrize("area", [0.6, 0.76, 0.9, 0.97])
@pytest.mark.parametrize("positives", [3, 5, 10])
def test_auroc_of_few_positives_is_covered_at_any_level(positives: int, area: float) -> None:
    assert coverage.few_positives(positives, area)[0] >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["auroc", "recall"])
@pytest.mark.parametrize("positives", [3, 5, 10])
def test_few_positives_do_not_make_differences(metric: str, positives: int) -> None:
    assert (coverage.few_positives_p(metric, positives) < 0.05).mean() <= 0.06


@pytest.mark.slow
@pytest.mark.parametrize("several", [False, True], ids=["one image a patient", "several"])
@pytest.mark.parametrize("share", [0.5, 0.8, 0.95, 0.99])
@pytest.mark.parametrize("patients", [10, 30, 100])
def test_proportions_are_covered_up_to_the_boundary(patients: int, share: float, several: bool) -> None:
    assert coverage.proportion(share, patients, several) >= 0.90
