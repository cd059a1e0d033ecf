"""95 % bands of ROC and precision-recall curves: at each point an interval of the kind that tables print.

The part of the test patients is the variance over resamples of them: where a curve reaches a false positive rate, or a
recall, depends on images of the other class too, so that a patient's influence on it has no simple formula. It is at
least that of a proportion of as many images, the part of the seeds is added, and the interval is Wilson's at the number
of independent images that would give the sum (see `uncertainty`). The percentiles of the resamples themselves would be
a band of no width wherever three positives are all found.

Letters: K seeds, N images, B resamples, G = 101 points.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from results.figures.scores import BAND_RESAMPLES, Scores
from results.stats import bootstrap
from results.stats.influence import too_few
from results.stats.uncertainty import Components, bounds, split_variance

Curve = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""(truth (N,), score (N,), weights (B, N)) -> the curve at the points of `scores.GRID`, (B, G)."""

Carriers = Callable[[Scores], tuple[np.ndarray, np.ndarray]]
"""Scores -> images, and patients, of which the curve's value is a share, at each point, each (G,); NaN patients where
they are too few for a band."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Band:
    """A curve with its band, each (G,)."""

    value: np.ndarray
    """Mean over seeds."""
    low: np.ndarray
    """Lower end; NaN where there is no band."""
    high: np.ndarray
    """Upper end."""


def band(runs: Sequence[Scores], curve: Curve, carriers: Carriers) -> Band:
    """The mean curve of runs that differ in their seed, with its band.

    There is none where too few patients carry the curve (see `influence.too_few`), or where the seeds were tested on
    different images.
    """
    values = np.stack([curve(run.truth, run.score, np.ones((1, len(run.truth)), np.int32))[0] for run in runs])
    mean, ends = values.mean(axis=0), np.full((2, values.shape[1]), np.nan)
    if not too_few(runs[0].truth, runs[0].patients) and _same_images(runs):
        carried = [carriers(run) for run in runs]
        images, patients = (np.min([one[part] for one in carried], axis=0) for part in (0, 1))
        resampled = _resampled(runs, curve)
        own, between = resampled.var(axis=1), values.var(axis=0, ddof=1) if len(runs) > 1 else np.zeros(len(mean))
        variance, spread = split_variance(len(runs), own.mean(axis=0), resampled.mean(axis=0).var(axis=0), between)
        variance = variance + np.maximum(0.0, _least(values, images, patients) - own).mean(axis=0)
        for point in np.flatnonzero(np.isfinite(mean) & np.isfinite(patients)):
            parts = Components(
                value=float(mean[point]),
                patients=float(variance[point]),
                patient_freedom=np.inf if images[point] == patients[point] else max(patients[point] - 1, 1),
                seeds=float(spread[point]),
                seed_freedom=len(runs) - 1 if len(runs) > 1 else np.inf,
            )
            low, high = bounds(parts, float(patients[point]))
            ends[:, point] = (low, high) if low is not None and high is not None else np.nan
    return Band(value=mean, low=ends[0], high=ends[1])


def _same_images(runs: Sequence[Scores]) -> bool:
    first = runs[0]
    return all(
        np.array_equal(run.patients, first.patients) and np.array_equal(run.truth, first.truth) for run in runs[1:]
    )


def _resampled(runs: Sequence[Scores], curve: Curve) -> np.ndarray:
    """Curves of resampled patients, the same ones for every seed, (K, B, G); those without both classes left out."""
    total = int(runs[0].patients.max()) + 1
    found = np.stack(
        [
            np.concatenate(
                [
                    curve(run.truth, run.score, counts[:, run.patients])
                    for counts in bootstrap.resample_counts(total, BAND_RESAMPLES, 0, len(run.patients))
                ]
            )
            for run in runs
        ]
    )
    return found[:, np.isfinite(found).all(axis=(0, 2))]


def _least(values: np.ndarray, images: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """Variance that a share of so many images has at least, (K, G); at 0 and 1 that of half a patient more."""
    inside = (values > 0) & (values < 1)
    share = np.where(inside, values, (values * patients + 0.5) / (patients + 1))
    return share * (1 - share) / np.where(inside, images, patients)
