"""Numbers of features against scikit-learn, or against their definitions where it has none."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics
from sklearn.neighbors import KNeighborsClassifier

from cxrdist.inference import representation
from cxrdist.inference.compared_images import Images
from cxrdist.inference.encoder_measures import Features, Splits, measure, one_against_rest
from cxrdist.pretrain.online_eval import knn_scores
from shards.labels import NULL


def two(n: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, 6) and (n, 3), of which the second hold a part of the first."""
    rng = np.random.default_rng(seed)
    one = rng.normal(size=(n, 6)) + 3
    return one.astype(np.float32), (one[:, :3] + rng.normal(size=(n, 3))).astype(np.float32)


def test_linear_cka_is_hsic_of_centred_kernels() -> None:
    one, other = two()
    n = len(one)
    centring = np.eye(n) - 1 / n
    k, m = (x.astype(np.float64) @ x.T.astype(np.float64) for x in (one, other))

    def hsic(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.trace(a @ centring @ b @ centring)) / (n - 1) ** 2

    found = representation.linear_cka(one, other)
    assert found == pytest.approx(hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m)), rel=1e-9)
    by_features = np.linalg.norm((one - one.mean(0)).T @ (other - other.mean(0))) ** 2
    sizes = [np.linalg.norm((x - x.mean(0)).T @ (x - x.mean(0))) for x in (one, other)]
    assert found == pytest.approx(by_features / (sizes[0] * sizes[1]), rel=1e-5), "the other form in the paper"


def test_cka_does_not_see_rotations_and_scales_and_sees_all_else() -> None:
    one, other = two()
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(6, 6)))[0]
    for formula in (representation.linear_cka, representation.unbiased_cka):
        assert formula(one, 7 * one @ turn + 5) == pytest.approx(1, abs=1e-6)
        assert formula(one, other) == pytest.approx(formula(other, one))
        assert formula(np.ones((9, 3)), two(9)[0]) is None, "the same for all images"
    assert 0.2 < (representation.linear_cka(one, other) or 0) < 0.99


def test_unbiased_hsic_is_its_u_statistic() -> None:
    one, other = two(6)
    k, m = (representation._gram(x) for x in (one, other))
    terms = [
        k[i, j] * m[i, j] + k[i, j] * m[q, r] - 2 * k[i, j] * m[i, q]
        for i, j, q, r in itertools.permutations(range(6), 4)
    ]
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)
    assert representation._hsic(k, m) == pytest.approx(np.mean(terms), rel=1e-9)


def test_few_images_make_independent_features_alike_only_in_the_biased_cka() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(60, 200)), rng.normal(size=(60, 200))
    assert (representation.linear_cka(one, other) or 0) > 0.6
    assert representation.unbiased_cka(one, other) == pytest.approx(0, abs=0.05)


def test_groups_are_measured_as_defined() -> None:
    rng = np.random.default_rng(2)
    classes = np.repeat([0, 1, 2], 12)
    units = representation.unit(rng.normal(size=(36, 4)) + np.eye(4)[classes] * 1.5)
    clusters = representation.clusters(units, 3, 0)
    found = representation.grouping(units, classes, clusters)
    assert found is not None
    distance = np.linalg.norm(units[:, None] - units[None], axis=2)
    widths = []
    for i in range(36):
        own = (classes == classes[i]) & (np.arange(36) != i)
        a = distance[i][own].mean()
        b = min(distance[i][classes == other].mean() for other in range(3) if other != classes[i])
        widths.append((b - a) / max(a, b))
    assert found.silhouette == pytest.approx(np.mean(widths), abs=1e-5)
    table = np.array([[((classes == c) & (clusters == k)).sum() for k in range(3)] for c in range(3)]) / 36
    outer = np.outer(table.sum(1), table.sum(0))
    shared = (table * np.log(np.where(table > 0, table / outer, 1))).sum()
    entropies = [-(p[p > 0] * np.log(p[p > 0])).sum() for p in (table.sum(0), table.sum(1))]
    assert found.nmi == pytest.approx(shared / np.mean(entropies))
    same = [(classes[i] == classes[j], clusters[i] == clusters[j]) for i, j in itertools.combinations(range(36), 2)]
    both = np.array(same)
    expected = both[:, 0].sum() * both[:, 1].sum() / len(both)
    ari = (both.all(1).sum() - expected) / (both.sum() / 2 - expected)
    assert found.ari == pytest.approx(ari)
    assert representation.grouping(units, np.zeros(36), clusters) is None, "one class"


def test_patients_are_recognised_by_the_distance_of_their_images() -> None:
    rng = np.random.default_rng(3)
    patients = np.repeat(np.arange(10), 3)
    patients[:2] = 77, 78  # and three patients with one image
    centres = rng.normal(size=(79, 5))
    units = representation.unit(centres[patients] + 0.4 * rng.normal(size=(30, 5)))
    found = representation.recognition(units, patients)
    assert found is not None
    pairs = list(itertools.combinations(range(30), 2))
    truth = [patients[i] == patients[j] for i, j in pairs]
    assert found.auroc == pytest.approx(metrics.roc_auc_score(truth, [float(units[i] @ units[j]) for i, j in pairs]))
    assert found.images == 27
    nearest = [max((j for j in range(30) if j != i), key=lambda j: float(units[i] @ units[j])) for i in range(3, 30)]
    assert found.first == pytest.approx(np.mean(patients[nearest] == patients[3:]))
    assert found.first_by_chance == pytest.approx(2 / 29)
    assert representation.recognition(units, np.arange(30)) is None


def test_the_vote_of_neighbours_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(4)
    bank, queries = (representation.unit(rng.normal(size=(n, 8)) + 0.5) for n in (80, 30))
    truth = rng.integers(0, 2, (80, 1)).astype(np.int8)
    weights: Any = lambda distances: np.exp(-distances / 0.07)  # noqa: E731
    reference = KNeighborsClassifier(7, metric="cosine", algorithm="brute", weights=weights)
    reference.fit(bank, truth[:, 0])
    votes = knn_scores(torch.from_numpy(bank), truth, torch.from_numpy(queries), 7)
    np.testing.assert_allclose(votes[:, 0], np.asarray(reference.predict_proba(queries))[:, 1], rtol=1e-4)


def test_classes_against_the_rest_leave_out_what_is_not_known() -> None:
    values = np.array(["AP", None, "PA", "LATERAL"], dtype=object)
    assert one_against_rest(values, ["AP", "PA"]).tolist() == [[1, 0], [NULL, NULL], [0, 1], [0, 0]]


def images(n: int, seed: int, patients: int) -> Images:
    """Images of which views and labels are drawn; features are made from them."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, (n, 2)).astype(np.int8)
    truth[::9, 1] = NULL
    view = np.array(["AP", "PA", "LATERAL"], dtype=object)[rng.integers(0, 3, n)]
    view[::7] = None
    return Images(
        parts=(),
        keys=np.arange(n).astype(str),
        patients=(np.arange(n) % patients).astype(str),
        truth=truth,
        traits={"view": view, "sex": np.full(n, None, object), "dataset": np.full(n, "one", object)},
    )


def seen(held: Images, seed: int) -> np.ndarray:
    """Features that know the first label well, the view perfectly, and the second label not at all."""
    rng = np.random.default_rng(seed)
    view = np.array([[value == name for name in ("AP", "PA", "LATERAL")] for value in held.traits["view"]])
    mixed = np.c_[held.truth[:, :1] * 1.5, view * 8.0, np.zeros((len(held), 2))]
    return (mixed + rng.normal(size=mixed.shape)).astype(np.float32)


def test_what_features_know_of_labels_and_shortcuts_is_found() -> None:
    train, test = images(300, 0, 300), images(200, 1, 100)
    held = Features(
        train=seen(train, 2), val=None, test=seen(test, 3), views=(torch.zeros(200, 6), torch.zeros(200, 6))
    )
    rows = measure(held, Splits(train=train, val=None, test=test), ["mass", "edema"], knn=10, seed=0)
    found = {(row.measure, row.target): row for row in rows}
    assert len(found) == len(rows), "every number once"
    mass, edema = found["probe_auroc", "mass"], found["probe_auroc", "edema"]
    assert mass.value > 0.75 and abs(edema.value - 0.5) < 0.12
    assert (mass.images, edema.images) == (200, 200 - len(range(0, 200, 9)))
    for row in (mass, edema):
        assert row.ci_low is not None and row.ci_high is not None and row.ci_low < row.value < row.ci_high
    assert found["probe_auroc", "macro"].value == pytest.approx((mass.value + edema.value) / 2)
    view = found["probe_auroc", "view"]
    assert view.value > 0.99 and view.images == 200 - len(range(0, 200, 7))
    assert found["silhouette", "view"].value > 0.3 and found["kmeans_ari", "view"].value > 0.8
    assert abs(found["silhouette", "edema"].value) < 0.05
    assert not {target for _, target in found} & {"sex", "dataset"}, "not known, and one for all: nothing to tell"
    assert found["nearest", "patient"].chance == pytest.approx(1 / 199)
    assert abs(found["pair_auroc", "patient"].value - 0.5) < 0.1, "patients were dealt out at random"
    assert found["alignment", ""].value == 0 and 1 < found["effective_rank", ""].value <= 6
