"""The share of labels at which one way to train reaches what another one has with fewer.

The curve of the reference over the share of labels is made monotone (more labels do not harm: isotonic regression) and
interpolated on the logarithm of the share. The interval is that of the 2.5th and 97.5th percentile over resamples: test
patients are drawn with replacement, the same ones for every point of both curves, and each point moves by its seeds'
part. A resample's value is taken from the patients' influences (to first order in how often each is drawn), so that
thousands cost one product of matrices.

Letters: M points of the reference's curve, P patients, B resamples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from results.stats import bootstrap, uncertainty
from results.stats.influence import Influence

RESAMPLES = 4000
"""Resamples behind an interval."""


ROUNDING = 1e-12
"""Values this near to each other are equal."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reached:
    """Where the reference reaches a value, as a share of the labels."""

    share: float
    """0 where the reference has it with its fewest labels already, infinite where not even with its most."""
    low: float | None = None
    """Lower end of the 95 % interval, 0 or infinite as `share`; None where there is none."""
    high: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """One way to train on one share of the labels: runs that differ in their seed."""

    share: float
    """Of the labels, above 0."""
    runs: Sequence[Influence]
    """One a seed, all of one test set."""

    @property
    def value(self) -> float:
        """Mean over seeds."""
        return float(np.mean([run.value for run in self.runs]))


def reached(points: Sequence[Point], other: Point, *, resamples: int = RESAMPLES, seed: int = 0) -> Reached:
    """The share at which the reference has the other's value, with its interval.

    Args:
        points: the reference's curve, two points at least, by share.
        other: what is to be reached.
        resamples: B.
        seed: of the resamples.
    """
    shares = np.log([point.share for point in points])
    every = [*points, other]
    values = np.array([point.value for point in every])
    estimate = float(crossing(shares, values[None, :-1], values[None, -1:])[0])
    drawn = values + _deviations(every, resamples, seed)
    found = crossing(shares, drawn[:, :-1], drawn[:, -1:])
    low, high = np.quantile(found, [0.025, 0.975], method="inverted_cdf")
    return Reached(share=estimate, low=float(low), high=float(high))


def _deviations(points: Sequence[Point], resamples: int, seed: int) -> np.ndarray:
    """By how much each point's mean differs from itself in each resample, (B, points)."""
    effects = np.stack([np.mean([run.patients for run in point.runs], axis=0, dtype=np.float64) for point in points])
    generator = np.random.default_rng([seed, 1])
    total = effects.shape[1]
    shifts = [counts @ effects.T - effects.sum(axis=1) for counts in bootstrap.resample_counts(total, resamples, seed)]
    out = np.concatenate(shifts)
    for place, (point, effect) in enumerate(zip(points, effects, strict=True)):
        parts = uncertainty.components(point.runs)
        # What resampled patients do not bring: few patients' extra variance, and the seeds with their own quantiles.
        more = max(0.0, parts.patients - float(effect @ effect))
        out[:, place] += np.sqrt(more) * generator.normal(size=resamples)
        if parts.seeds > 0:
            freedom = parts.seed_freedom
            out[:, place] += np.sqrt(parts.seeds) * generator.standard_t(freedom, size=resamples)
    return out


def crossing(x: np.ndarray, curves: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where rising curves reach a value, exp(x) there, (B,); 0 below their first point, infinite above their last.

    Args:
        x: rising (M,), logarithms of shares.
        curves: (B, M), made monotone here.
        wanted: (B, 1).
    """
    rising = isotonic(curves)
    out = np.full(len(rising), np.inf)
    held = rising >= wanted - ROUNDING
    first = held.argmax(axis=1)
    some = held.any(axis=1)
    out[some & (first == 0)] = 0.0
    inner = np.flatnonzero(some & (first > 0))
    right, left = rising[inner, first[inner]], rising[inner, first[inner] - 1]
    part = np.minimum((wanted[inner, 0] - left) / (right - left), 1.0)
    out[inner] = np.exp(x[first[inner] - 1] + part * (x[first[inner]] - x[first[inner] - 1]))
    exactly = np.abs(rising[:, 0] - wanted[:, 0]) <= ROUNDING
    out[exactly] = np.exp(x[0])
    return out


def isotonic(curves: np.ndarray) -> np.ndarray:
    """The nearest rising curves by least squares, (B, M), by the min-max formula (Robertson et al. 1988)."""
    sums = np.cumsum(np.pad(curves, ((0, 0), (1, 0))), axis=1)
    count = curves.shape[1]
    out = np.full_like(curves, -np.inf)
    for i in range(count):
        best = np.full(len(curves), -np.inf)
        for s in range(i + 1):
            means = (sums[:, i + 1 :] - sums[:, [s]]) / (np.arange(i + 1, count + 1) - s)
            best = np.maximum(best, means.min(axis=1))
        out[:, i] = best
    return out
