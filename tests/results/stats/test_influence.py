"""A patient's influence is the metric's derivative by his weight, which scikit-learn's weighted metrics give."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sklearn import metrics as sk

from results.metric_names import METRICS
from results.stats import influence
from results.stats.delong import delong
from results.stats.metrics import compute


def draw(n: int = 120, patients: int = 40, step: float | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    owner = np.unique(np.sort(generator.integers(0, patients, n)), return_inverse=True)[1]
    truth = generator.random(n) < 0.35
    shared = generator.normal(size=owner.max() + 1)[owner]
    score = 1 / (1 + np.exp(-(1.2 * truth - 0.5 + 0.7 * shared + generator.normal(size=n))))
    return truth, np.round(score / step) * step if step else score, owner


def specificity(truth: np.ndarray, called: np.ndarray, sample_weight: np.ndarray) -> float:
    return sk.recall_score(~truth, ~called, sample_weight=sample_weight)


AT_THRESHOLD: dict[str, Callable[..., float]] = {
    "accuracy": sk.accuracy_score,
    "balanced_accuracy": sk.balanced_accuracy_score,
    "precision": sk.precision_score,
    "recall": sk.recall_score,
    "specificity": specificity,
    "f1": sk.f1_score,
}
OF_SCORES: dict[str, Callable[..., float]] = {
    "auroc": sk.roc_auc_score,
    "auprc": sk.average_precision_score,
    "brier": sk.brier_score_loss,
}


@pytest.mark.parametrize("step", [None, 0.1], ids=["distinct scores", "ties"])
@pytest.mark.parametrize("metric", influence.INTERVAL_METRICS)
def test_influence_is_the_derivative_by_a_patients_weight(metric: str, step: float | None) -> None:
    truth, score, patients = draw(step=step)
    found = influence.influence(metric, truth, score, patients, 0.45)
    assert found is not None and found.value == pytest.approx(compute(truth, score, 0.45)[metric])
    for patient in range(patients.max() + 1):
        values = []
        for change in (1e-4, -1e-4):
            weights = np.where(patients == patient, 1 + change, 1.0)
            if metric in OF_SCORES:
                values.append(OF_SCORES[metric](truth, score, sample_weight=weights))
            else:
                values.append(AT_THRESHOLD[metric](truth, score >= 0.45, sample_weight=weights))
        slope = (values[0] - values[1]) / 2e-4
        # Corrections for few patients, n / (n - 1) on the variance of each class, change an influence a little.
        largest = float(np.abs(found.patients).max())
        assert found.patients[patient] == pytest.approx(slope, abs=0.03 * largest), patient


def test_aurocs_variance_is_delongs_by_patient_where_patients_are_many() -> None:
    generator = np.random.default_rng(3)
    truth = generator.random(4000) < 0.3
    score = 1 / (1 + np.exp(-(truth + generator.normal(size=4000))))
    patients = np.arange(4000) // 2
    found = influence.influence("auroc", truth, score, patients)
    area, variance = delong(truth, score, patients)
    assert found is not None and found.value == pytest.approx(area)
    assert found.variance == pytest.approx(variance, rel=2e-3)


def test_every_metric_but_ece_has_an_interval() -> None:
    assert set(influence.INTERVAL_METRICS) == set(METRICS) - {"ece"}


def test_a_class_found_without_a_miss_is_not_certain() -> None:
    truth = np.repeat([True, False], [5, 100])
    score = np.repeat([0.9, 0.1], [5, 100])
    for metric in ("auroc", "recall", "balanced_accuracy", "f1", "accuracy"):
        found = influence.influence(metric, truth, score, np.arange(105), 0.5)
        assert found is not None and found.value == 1 and found.boundary is not None
        assert found.variance > 0 or metric == "auroc"


def test_several_images_of_a_patient_are_not_more_patients() -> None:
    truth, score, _ = draw(100, 100)
    alone = influence.influence("recall", truth, score, np.arange(100), 0.5)
    five = [np.repeat(one, 5) for one in (truth, score, np.arange(100))]
    repeated = influence.influence("recall", five[0], five[1], five[2], 0.5)
    assert alone is not None and repeated is not None
    assert repeated.variance == pytest.approx(alone.variance)
    by_image = influence.influence("recall", five[0], five[1], np.arange(500), 0.5)
    assert by_image is not None and by_image.variance < 0.3 * repeated.variance


@pytest.mark.parametrize(
    ("positives", "negatives", "few"), [(2, 50, True), (3, 50, False), (50, 2, True), (4, 5, True), (5, 5, False)]
)
def test_few_patients_of_a_class_are_too_few(positives: int, negatives: int, few: bool) -> None:
    truth = np.repeat([True, False], [positives, negatives])
    assert influence.too_few(truth, np.arange(len(truth))) is few
    assert influence.too_few(truth, np.zeros(len(truth), int)), "one patient's images are one patient"


def test_undefined_metrics_have_no_influence() -> None:
    truth, score, patients = np.repeat([True, False], 5), np.full(10, 0.2), np.arange(10)
    assert influence.influence("precision", truth, score, patients, 0.5) is None, "nothing was predicted positive"
    assert influence.influence("recall", truth, score, patients, None) is None
    assert influence.influence("auroc", np.ones(10, bool), score, patients) is None
    assert influence.influence("ece", truth, score, patients) is None
