"""What tables for reviewers promise, by simulation; all figures stand in benches/reports/statistics.md."""

from __future__ import annotations

import pytest

from tests.results import coverage_tables

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("prevalence", coverage_tables.PREVALENCES)
@pytest.mark.parametrize("rate", coverage_tables.RATES)
def test_predictive_values_are_covered(rate: float, prevalence: float) -> None:
    for share in coverage_tables.predictive(rate, prevalence, replicates=500):
        assert share > 0.92


@pytest.mark.parametrize("metric", ["auroc", "recall"])
@pytest.mark.parametrize(("groups", "seeds"), [(2, 1), (5, 1), (2, 3), (5, 3)])
def test_equal_groups_have_a_significant_gap_in_at_most_five_of_a_hundred(metric: str, groups: int, seeds: int) -> None:
    assert coverage_tables.gaps(metric, groups, seeds, replicates=500) < 0.07


@pytest.mark.parametrize(("seeds", "spread"), [(1, 0.0), (3, 0.01)])
def test_the_share_of_labels_at_which_scratch_reaches_a_value_is_covered(seeds: int, spread: float) -> None:
    assert coverage_tables.saved(0.72, seeds, spread, replicates=300) > 0.92


@pytest.mark.parametrize(("factor", "shift"), [(1.0, 0.0), (2.0, 0.0), (0.5, 0.0), (1.0, 1.0)])
def test_calibration_slope_and_intercept_are_covered(factor: float, shift: float) -> None:
    slope, intercept = coverage_tables.slopes(factor, shift, replicates=500)
    assert slope > 0.92
    assert factor != 1.0 or intercept > 0.92
