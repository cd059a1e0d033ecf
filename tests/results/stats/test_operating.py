"""Rates at a threshold, predictive values at a stated prevalence, and thresholds for a wanted specificity."""

from __future__ import annotations

import numpy as np
import pytest

from results.errors import InputError
from results.stats import operating, uncertainty
from results.stats.metrics import pick_threshold

TRUTH = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0], bool)
SCORE = np.array([0.9, 0.8, 0.7, 0.2, 0.75, 0.6, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1])
PATIENTS = np.arange(12)


def test_rates_are_shares_of_the_images_counted_at_the_threshold() -> None:
    found = operating.rates(TRUTH, SCORE, PATIENTS, 0.7)
    values = {name: one.value for name, one in found.items() if one is not None}
    assert values == pytest.approx({"recall": 3 / 4, "specificity": 7 / 8, "precision": 3 / 4, "npv": 7 / 8})


def test_an_image_exactly_at_the_threshold_is_called_positive_in_every_rate() -> None:
    found = operating.rates(TRUTH, SCORE, PATIENTS, 0.2)
    assert found["recall"].value == 1 and found["npv"].value == 1  # type: ignore[union-attr]


def test_predictive_values_at_a_prevalence_are_those_of_bayes() -> None:
    found = operating.rates(TRUTH, SCORE, PATIENTS, 0.7, prevalence=0.05)
    assert found["precision"].value == pytest.approx(0.75 * 0.05 / (0.75 * 0.05 + 0.125 * 0.95))  # type: ignore[union-attr]
    assert found["npv"].value == pytest.approx(0.875 * 0.95 / (0.875 * 0.95 + 0.25 * 0.05))  # type: ignore[union-attr]


def test_at_the_test_sets_own_prevalence_bayes_gives_the_counted_values() -> None:
    counted = operating.rates(TRUTH, SCORE, PATIENTS, 0.7)
    stated = operating.rates(TRUTH, SCORE, PATIENTS, 0.7, prevalence=4 / 12)
    for rate in ("precision", "npv"):
        assert stated[rate].value == pytest.approx(counted[rate].value)  # type: ignore[union-attr]


def test_influences_of_a_predictive_value_are_its_derivatives_by_the_weight_of_a_patient() -> None:
    found = operating.rates(TRUTH, SCORE, PATIENTS, 0.7, prevalence=0.2)["precision"]
    assert found is not None
    for patient in (0, 3, 4, 6):
        weight = np.ones(12)
        weight[patient] += 1e-6
        called = SCORE >= 0.7
        se = weight[TRUTH & called].sum() / weight[TRUTH].sum()
        fpr = weight[~TRUTH & called].sum() / weight[~TRUTH].sum()
        moved = se * 0.2 / (se * 0.2 + fpr * 0.8)
        n = (TRUTH if TRUTH[patient] else ~TRUTH).sum()  # sums are scaled by n / (n - 1) as variances are
        assert found.patients[patient] == pytest.approx((moved - found.value) / 1e-6, rel=1.5 / n, abs=1e-9)


def test_rates_that_do_not_exist_are_none_and_no_number() -> None:
    nothing = operating.rates(TRUTH, SCORE, PATIENTS, 0.95)
    assert nothing["precision"] is None and nothing["recall"].value == 0  # type: ignore[union-attr]
    assert operating.rates(TRUTH, SCORE, PATIENTS, 0.0)["npv"] is None
    assert operating.rates(TRUTH, SCORE, PATIENTS, 0.95, prevalence=0.1)["precision"] is None
    assert set(operating.rates(np.ones(12, bool), SCORE, PATIENTS, 0.5, prevalence=0.1).values()) == {None}


def test_a_predictive_value_of_one_has_an_interval_below_it() -> None:
    found = operating.rates(TRUTH, SCORE, PATIENTS, 0.8, prevalence=0.1)["precision"]
    assert found is not None and found.value == 1
    low, high = uncertainty.interval([found])
    assert low is not None and low < 0.4 and high == 1, "8 negatives do not prove that no call is wrong"


def test_the_threshold_for_a_specificity_is_the_lowest_that_keeps_it() -> None:
    assert pick_threshold(TRUTH, SCORE, "specificity=0.75") == 0.2
    assert pick_threshold(TRUTH, SCORE, "specificity=0.875") == 0.7
    assert pick_threshold(TRUTH, SCORE, "specificity=1") == 0.8
    for wanted in (0.3, 0.6, 0.8, 0.95, 1.0):
        threshold = pick_threshold(TRUTH, SCORE, f"specificity={wanted}")
        assert (SCORE[~TRUTH] < threshold).mean() >= wanted


def test_where_the_highest_score_is_a_negatives_the_threshold_lies_above_it() -> None:
    truth, score = np.array([1, 0, 0], bool), np.array([0.5, 0.9, 0.1])
    threshold = pick_threshold(truth, score, "specificity=1")
    assert threshold > 0.9 and not (score >= threshold).any()


@pytest.mark.parametrize("rule", ["youden", "specificity", "specificity=0", "specificity=1.2", "sensitivity=nan"])
def test_unknown_rules_are_refused_with_those_that_are_known(rule: str) -> None:
    with pytest.raises(InputError, match="known: balanced_accuracy, accuracy, f1, sensitivity=0.9, specificity=0.9"):
        pick_threshold(TRUTH, SCORE, rule)
