"""What one encoder's features say of labels, and of what they should not know, as rows of numbers.

Shapes: n training images, m test images, D features, L labels, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cxrdist.finetune import linear_probe
from cxrdist.finetune.config import ClassifierHeadConfig
from cxrdist.inference import representation
from cxrdist.inference.compared_images import Images
from cxrdist.pretrain.online_eval import alignment, effective_rank, knn_scores, uniformity
from results.schema import MACRO
from results.stats import influence, uncertainty
from shards.labels import NEGATIVE, NULL, POSITIVE

LABEL, SHORTCUT, FEATURES = "label", "shortcut", "features"
"""What a row is about: a label; what a network should not need to know; the features by themselves."""
_INTERVAL = "auroc"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One number of one encoder."""

    measure: str
    """knn_auroc, probe_auroc, silhouette, kmeans_nmi, kmeans_ari, pair_auroc, nearest, effective_rank, alignment or
    uniformity."""
    kind: str
    """label, shortcut or features."""
    target: str
    """A label or macro; view, sex, dataset or patient; empty for features."""
    value: float
    """The number."""
    ci_low: float | None = None
    """95 % interval over test patients, of AUROCs."""
    ci_high: float | None = None
    """Its other end."""
    chance: float | None = None
    """What features without information have; None where that is not known."""
    images: int
    """Test images that count."""


@dataclass(frozen=True, kw_only=True)
class Features:
    """Features of one encoder, float32, of the images of each split."""

    train: np.ndarray
    """(n, D)."""
    val: np.ndarray | None
    """Of the images on which the probe's penalty is chosen."""
    test: np.ndarray
    """(m, D)."""
    views: tuple[torch.Tensor, torch.Tensor]
    """Of two augmented views of each test image, (m, D) each."""


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The images behind `Features`."""

    train: Images
    val: Images | None
    test: Images


def measure(features: Features, images: Splits, labels: Sequence[str], *, knn: int, seed: int) -> list[Row]:
    """All numbers of one encoder.

    Args:
        features: of the encoder.
        images: what they are features of.
        labels: names of the columns of `Images.truth`.
        knn: neighbours that vote.
        seed: of k-means.
    """
    units = representation.unit(features.test)
    test = images.test
    rows = _of_features(features, len(test))
    rows += _areas("knn_auroc", LABEL, labels, test.truth, _neighbours(features, images, knn), test.patients)
    val = None if images.val is None else images.val.truth
    scores = _probe(features, images.train.truth, val)
    rows += _areas("probe_auroc", LABEL, labels, test.truth, scores, test.patients)
    held: dict[int, np.ndarray] = {}
    for column, label in enumerate(labels):
        known = np.isin(test.truth[:, column], (POSITIVE, NEGATIVE))
        rows += _groups(LABEL, label, units, test.truth[:, column], known, held, seed)
    rows += _means(rows, labels)
    for trait, values in test.traits.items():
        rows += _trait(trait, features, images)
        known = np.array([value is not None for value in values], dtype=bool)
        rows += _groups(SHORTCUT, trait, units, values.astype(str), known, held, seed)
    return rows + _patients(units, test.patients)


def _of_features(features: Features, count: int) -> list[Row]:
    found = {
        "effective_rank": effective_rank(torch.from_numpy(features.test)),
        "alignment": alignment(*features.views),
        "uniformity": uniformity(torch.from_numpy(features.test)),
    }
    return [Row(measure=name, kind=FEATURES, target="", value=value, images=count) for name, value in found.items()]


def _neighbours(features: Features, images: Splits, knn: int) -> np.ndarray:
    bank, queries = (torch.from_numpy(representation.unit(part)) for part in (features.train, features.test))
    return knn_scores(bank, images.train.truth, queries, knn)


def _probe(features: Features, train: np.ndarray, val: np.ndarray | None) -> np.ndarray:
    """Logits float32 (m, C) of a logistic regression of each column of int8 `train` (n, C); see `linear_probe.fit`."""
    chosen = None
    if val is not None and features.val is not None:
        chosen = (features.val, (val == POSITIVE).astype(np.float32), _known(val))
    ones = np.ones(train.shape[1])
    penalties = ClassifierHeadConfig().probe_l2
    truth = (train == POSITIVE).astype(np.float32)
    probe = linear_probe.fit(features.train, truth, _known(train), (ones, ones), penalties, chosen)
    return features.test @ probe.weight.T + probe.bias


def _known(truth: np.ndarray) -> np.ndarray:
    return (truth == POSITIVE) | (truth == NEGATIVE)


def _areas(
    name: str, kind: str, targets: Sequence[str], truth: np.ndarray, scores: np.ndarray, patients: np.ndarray
) -> list[Row]:
    """AUROCs with intervals, of each column that has both classes, and their mean where there are several.

    Args:
        name: of the measure.
        kind: of the rows.
        targets: names of the C columns; the mean is called macro.
        truth: int8 (m, C).
        scores: (m, C).
        patients: (m,).
    """
    codes = np.unique(patients, return_inverse=True)[1]
    parts, rows, few = [], [], False
    for column, target in enumerate(targets):
        known = _known(truth[:, column])
        positive = truth[known, column] == POSITIVE
        found = influence.influence(_INTERVAL, positive, scores[known, column], codes[known], n_patients=len(codes))
        if found is None:
            continue
        parts.append(found)
        too_few = influence.too_few(positive, codes[known])
        few |= too_few
        rows.append(_area(name, kind, target, found, int(known.sum()), too_few))
    if len(parts) > 1:
        rows.append(_area(name, kind, MACRO, influence.mean(parts), len(truth), few))
    return rows


def _area(name: str, kind: str, target: str, found: influence.Influence, images: int, too_few: bool) -> Row:
    low, high = (None, None) if too_few else uncertainty.interval([found])
    return Row(
        measure=name, kind=kind, target=target, value=found.value, ci_low=low, ci_high=high, chance=0.5, images=images
    )


def _groups(
    kind: str,
    target: str,
    units: np.ndarray,
    classes: np.ndarray,
    known: np.ndarray,
    held: dict[int, np.ndarray],
    seed: int,
) -> list[Row]:
    """Silhouette, NMI and ARI of one target; the k-means has as many clusters as the target has classes.

    `held` keeps the clusters by their number, since all images are clustered, whatever is known of them.
    """
    count = len(np.unique(classes[known]))
    if count < 2:
        return []
    if count not in held:
        held[count] = representation.clusters(units, count, seed)
    found = representation.grouping(units[known], classes[known], held[count][known])
    if found is None:
        return []
    values = {"silhouette": found.silhouette, "kmeans_nmi": found.nmi, "kmeans_ari": found.ari}
    images = int(known.sum())
    return [
        Row(
            measure=name,
            kind=kind,
            target=target,
            value=value,
            chance=None if name == "silhouette" else 0,
            images=images,
        )
        for name, value in values.items()
    ]


def _means(rows: Sequence[Row], labels: Sequence[str]) -> list[Row]:
    """Means over labels of the measures of groups, where there are several."""
    means = []
    for name in ("silhouette", "kmeans_nmi", "kmeans_ari"):
        found = [row for row in rows if row.measure == name and row.kind == LABEL and row.target in labels]
        if len(found) > 1:
            value = float(np.mean([row.value for row in found]))
            images = max(row.images for row in found)
            means.append(
                Row(measure=name, kind=LABEL, target=MACRO, value=value, chance=found[0].chance, images=images)
            )
    return means


def _trait(trait: str, features: Features, images: Splits) -> list[Row]:
    """AUROC with which a linear probe tells a trait: the mean over its classes, each against the rest."""
    classes = sorted({value for value in images.train.traits[trait] if value is not None})
    classes = classes[1:] if len(classes) == 2 else classes  # of two, one says it all
    if not classes or len(set(images.train.traits[trait]) - {None}) < 2:
        return []
    train, test = (one_against_rest(part.traits[trait], classes) for part in (images.train, images.test))
    val = None if images.val is None else one_against_rest(images.val.traits[trait], classes)
    rows = _areas("probe_auroc", SHORTCUT, classes, test, _probe(features, train, val), images.test.patients)
    if not rows:
        return []
    whole = rows[-1]  # the mean where there are several
    known = int(_known(test[:, 0]).sum())
    return [Row(**{**whole.__dict__, "target": trait, "images": known})]


def one_against_rest(values: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Classes (m,), None where not known, as int8 (m, C): 1 the class, 0 another, NULL not known."""
    found = np.full((len(values), len(classes)), NEGATIVE, dtype=np.int8)
    for column, name in enumerate(classes):
        found[values == name, column] = POSITIVE
    found[np.array([value is None for value in values], dtype=bool)] = NULL
    return found


def _patients(units: np.ndarray, patients: np.ndarray) -> list[Row]:
    found = representation.recognition(units, patients)
    if found is None:
        return []
    common = {"kind": SHORTCUT, "target": "patient", "images": found.images}
    return [
        Row(measure="pair_auroc", value=found.auroc, chance=0.5, **common),
        Row(measure="nearest", value=found.first, chance=found.first_by_chance, **common),
    ]
