"""What the features of an encoder are worth, apart from any fine-tuning: numbers of one encoder, and between two.

Shapes: n images, D features of one encoder, E of another, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from results.stats.metrics import auroc


def unit(features: np.ndarray) -> np.ndarray:
    """Features (n, D) as unit vectors, float32; a vector of zeros stays one."""
    length = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    return (features / np.where(length > 0, length, 1)).astype(np.float32)


def linear_cka(one: np.ndarray, other: np.ndarray) -> float | None:
    """Linear centred kernel alignment of features (n, D) and (n, E) of the same images (Kornblith et al., ICML 2019).

    1 for features that differ by a rotation and a scale, 0 for uncorrelated ones. It is biased upwards where the images
    are not many more than the features; see `unbiased_cka`.

    Returns:
        Between 0 and 1; None where one side is the same for all images.
    """
    a, b = _gram(one), _gram(other)
    return _ratio(float((a * b).sum()), float((a * a).sum()), float((b * b).sum()))


def unbiased_cka(one: np.ndarray, other: np.ndarray) -> float | None:
    """`linear_cka` by the unbiased estimate of HSIC (Song et al., JMLR 2012, eq. 5), as Nguyen et al. (ICLR 2021) do.

    About 0, and below it by chance, for independent features, however many there are.

    Returns:
        At most about 1; None for fewer than 4 images, or where one side is the same for all.
    """
    if len(one) < 4:
        return None
    a, b = _gram(one), _gram(other)
    np.fill_diagonal(a, 0)
    np.fill_diagonal(b, 0)
    return _ratio(_hsic(a, b), _hsic(a, a), _hsic(b, b))


def _gram(features: np.ndarray) -> np.ndarray:
    """Inner products of centred features, float64 (n, n): centring the features centres the kernel."""
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    return centred @ centred.T


def _hsic(a: np.ndarray, b: np.ndarray) -> float:
    """Unbiased HSIC of two kernels without their diagonals, (n, n)."""
    n = len(a)
    ends = a.sum() * b.sum() / ((n - 1) * (n - 2)) - 2 * (a.sum(axis=0) @ b.sum(axis=0)) / (n - 2)
    return float(((a * b).sum() + ends) / (n * (n - 3)))


def _ratio(between: float, one: float, other: float) -> float | None:
    return None if one <= 0 or other <= 0 else between / float(np.sqrt(one * other))


@dataclass(frozen=True)
class Grouping:
    """How far the classes of a target are groups in the features."""

    silhouette: float
    """Mean silhouette (Rousseeuw 1987) of Euclidean distances between unit features, between -1 and 1."""
    nmi: float
    """Normalised mutual information of classes and k-means clusters, over the mean entropy; 0 to 1."""
    ari: float
    """Adjusted Rand index of the same (Hubert and Arabie 1985); about 0 by chance, 1 at best."""


def grouping(units: np.ndarray, classes: np.ndarray, clusters: np.ndarray) -> Grouping | None:
    """Compare classes with distances and with clusters.

    Args:
        units: unit features (n, D).
        classes: class of each image, any kind of value (n,).
        clusters: k-means cluster of each, (n,).

    Returns:
        None with one class, or no two images of one.
    """
    from sklearn import metrics

    count = len(np.unique(classes))
    if not 2 <= count < len(classes):
        return None
    return Grouping(
        float(metrics.silhouette_score(units, classes)),
        float(metrics.normalized_mutual_info_score(classes, clusters)),
        float(metrics.adjusted_rand_score(classes, clusters)),
    )


def clusters(units: np.ndarray, count: int, seed: int) -> np.ndarray:
    """K-means clusters (n,) of unit features (n, D), the best of ten starts; the same on any number of cores."""
    import warnings

    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct images than clusters: then fewer clusters
        model = KMeans(min(count, len(units)), n_init=10, random_state=seed)  # pyright: ignore[reportArgumentType]
        return model.fit_predict(units)


@dataclass(frozen=True)
class Recognition:
    """How well images of one patient are told from those of others by their distance."""

    auroc: float
    """Chance that two images of a patient are more alike than two of different patients; 0.5 by chance."""
    first: float
    """Share of the images, of those whose patient has another, whose nearest image is of the same patient."""
    first_by_chance: float
    """The same of a nearest image that is drawn at random."""
    images: int
    """Images whose patient has another."""


def recognition(units: np.ndarray, patients: np.ndarray) -> Recognition | None:
    """How far features tell who the patient is (as Packhaeuser et al., Scientific Reports 2022, ask of networks).

    Args:
        units: unit features (n, D); likeness is their cosine.
        patients: patient of each image (n,).

    Returns:
        None without two images of one patient, or without two patients.
    """
    codes = np.unique(patients, return_inverse=True)[1]
    same = codes[:, None] == codes
    upper = np.triu_indices(len(units), 1)
    truth = same[upper]
    if not truth.any() or truth.all():
        return None
    likeness = units @ units.T
    area = auroc(truth, likeness[upper])
    np.fill_diagonal(likeness, -np.inf)
    np.fill_diagonal(same, False)
    repeated = same.any(axis=1)
    nearest = likeness.argmax(axis=1)
    hits = codes[nearest] == codes
    return Recognition(
        area,
        float(hits[repeated].mean()),
        float(same.sum(axis=1)[repeated].mean() / (len(units) - 1)),
        int(repeated.sum()),
    )
