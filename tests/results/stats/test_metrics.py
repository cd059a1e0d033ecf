"""Every metric against scikit-learn or a plain loop; thresholds; refusals."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from results.errors import InputError
from results.metric_names import COUNTS, METRICS
from results.stats.metrics import compute, pick_threshold


def draw(n: int = 500, seed: int = 0, step: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    truth = generator.random(n) < 0.3
    score = np.clip(0.3 * truth + 0.7 * generator.random(n), 0, 1)
    return truth.astype(int), score if step is None else np.round(score / step) * step


def loop_ece(truth: np.ndarray, score: np.ndarray, bins: int = 15) -> float:
    total = 0.0
    for low in range(bins):
        inside = [i for i, s in enumerate(score) if low <= s * bins < low + 1 or (low == bins - 1 and s == 1)]
        if inside:
            total += abs(np.mean(truth[inside]) - np.mean(score[inside])) * len(inside) / len(score)
    return float(total)


@pytest.mark.parametrize("step", [None, 0.05, 0.25], ids=["distinct scores", "some ties", "many ties"])
def test_every_metric_equals_scikit_learn(step: float | None) -> None:
    truth, score = draw(step=step)
    threshold = 0.5
    called = score >= threshold
    tn, fp, fn, tp = sk.confusion_matrix(truth, called).ravel().tolist()
    expected = {
        "auroc": sk.roc_auc_score(truth, score),
        "auprc": sk.average_precision_score(truth, score),
        "accuracy": sk.accuracy_score(truth, called),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, called),
        "precision": sk.precision_score(truth, called),
        "recall": sk.recall_score(truth, called),
        "specificity": sk.recall_score(truth, called, pos_label=0),
        "f1": sk.f1_score(truth, called),
        "brier": sk.brier_score_loss(truth, score),
        "ece": loop_ece(truth, score),
        "tp": tp,
        "fp": fp,
        "tn": tn,
        "fn": fn,
    }
    found = compute(truth, score, threshold)
    assert set(found) == set(expected) == set(METRICS + COUNTS)
    assert found == pytest.approx(expected, abs=1e-12)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=2, max_size=40))
def test_rank_metrics_equal_scikit_learn_on_any_small_sample(pairs: list[tuple[bool, int]]) -> None:
    truth, score = np.array([t for t, _ in pairs]), np.array([s / 8 for _, s in pairs])
    if truth.all() or not truth.any():
        return
    found = compute(truth, score, 0.5)
    assert found["auroc"] == pytest.approx(sk.roc_auc_score(truth, score), abs=1e-12)
    assert found["auprc"] == pytest.approx(sk.average_precision_score(truth, score), abs=1e-12)


@pytest.mark.parametrize("value", [0, 1], ids=["no positives", "no negatives"])
def test_missing_class_gives_none_and_not_a_half(value: int) -> None:
    found = compute(np.full(6, value), np.linspace(0, 1, 6), 0.5)
    assert all(found[name] is None for name in METRICS)
    assert sum(found[name] or 0 for name in COUNTS) == 6


def test_without_threshold_only_its_metrics_are_none() -> None:
    found = compute(*draw(), None)
    assert {name for name, value in found.items() if value is None} == {
        *("accuracy", "balanced_accuracy", "precision", "recall", "specificity", "f1", "tp", "fp", "tn", "fn")
    }


def test_precision_is_undefined_when_nothing_is_called_positive() -> None:
    found = compute(np.array([0, 1, 0, 1]), np.array([0.1, 0.2, 0.3, 0.4]), 0.9)
    assert found["precision"] is None and found["recall"] == 0 and found["f1"] == 0


@pytest.mark.parametrize("bad", [np.nan, 1.5, -0.1])
def test_scores_that_are_no_probabilities_are_refused(bad: float) -> None:
    with pytest.raises(InputError, match="1 scores are NaN or outside"):
        compute(np.array([0, 1, 1]), np.array([0.1, bad, 0.5]), 0.5)


def test_threshold_of_balanced_accuracy_is_the_best_of_all() -> None:
    truth, score = draw(80, 3)
    threshold = pick_threshold(truth, score)
    best = max(sk.balanced_accuracy_score(truth, score >= cut) for cut in score)
    assert sk.balanced_accuracy_score(truth, score >= threshold) == pytest.approx(best)


def test_threshold_of_f1_is_the_best_of_all() -> None:
    truth, score = draw(80, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        best = max(sk.f1_score(truth, score >= cut) for cut in score)
    assert sk.f1_score(truth, score >= pick_threshold(truth, score, "f1")) == pytest.approx(best)


def test_of_equally_good_thresholds_the_one_that_misses_fewest_is_taken() -> None:
    truth, score = np.array([0, 1, 0, 1]), np.array([0.1, 0.2, 0.3, 0.4])
    assert pick_threshold(truth, score) == 0.2


@pytest.mark.parametrize("wanted", [0.5, 0.9, 1.0])
def test_threshold_of_a_sensitivity_is_the_highest_that_reaches_it(wanted: float) -> None:
    truth, score = draw(200, 5)
    threshold = pick_threshold(truth, score, f"sensitivity={wanted}")
    assert (score[truth == 1] >= threshold).mean() >= wanted
    above = score[score > threshold].min()
    assert (score[truth == 1] >= above).mean() < wanted


@pytest.mark.parametrize("rule", ["youden", "sensitivity=2", "sensitivity=x", "sensitivity"])
def test_unknown_threshold_rule_is_refused_with_the_known_ones(rule: str) -> None:
    with pytest.raises(InputError, match="balanced_accuracy, accuracy, f1, sensitivity"):
        pick_threshold(*draw(), rule)


def test_the_accuracy_rule_gives_the_highest_accuracy_and_a_number_is_itself() -> None:
    rng = np.random.default_rng(5)
    truth = rng.random(300) < 0.2
    score = np.clip(0.25 * truth + rng.normal(0.3, 0.15, 300), 0, 1)
    chosen = pick_threshold(truth, score, "accuracy")
    best = max(float(((score >= at) == truth).mean()) for at in np.unique(score))
    assert float(((score >= chosen) == truth).mean()) == pytest.approx(best)
    assert pick_threshold(truth, score, "0.5") == 0.5
    with pytest.raises(InputError, match="unknown threshold rule '1.5'; known: balanced_accuracy, accuracy"):
        pick_threshold(truth, score, "1.5")
