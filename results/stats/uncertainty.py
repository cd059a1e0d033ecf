"""Intervals and paired tests of a mean over seeds, with both of its errors: test patients and seeds.

The seeds of a cell are tested on the same patients, as the readers of a reading study read the same cases, and the
variance of their mean is the one of such studies (Obuchowski and Rockette 1995, Hillis et al. 2005): the covariance
between two seeds, which is what the patients contribute however many seeds there are, plus the variance between seeds
over their number. The latter holds what seeds and patients do together, too: seeds of one quality differ, because each
errs on patients of its own. How much that makes is known from the patients, not only from the few seeds; `KNOWN` and
`LEAST` say what is made of it.

Letters: K seeds, P patients.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from results.stats.delong import Difference
from results.stats.influence import Influence

LEVEL = 0.95
"""Of every interval."""

KNOWN = 0.1
"""The interaction of seeds and patients that intervals take for certain, at most, as a share of one seed's variance.

Two or three seeds tell their variance badly. With none of it taken for certain, intervals are too wide where seeds are
of one quality; with all of it, too narrow where they are not. Chosen by simulation (benches/reports/statistics.md)."""

LEAST = 0.5
"""Share of the interaction that the variance between seeds is taken to be at least: seeds can agree by luck."""

METHOD = "paired t test by patient"
METHOD_SEEDS = "paired t test by patient and seed"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Components:
    """The variance of a mean over seeds in its two parts."""

    value: float
    """The mean."""
    patients: float
    """Variance that the test patients contribute, with what is known of the interaction."""
    patient_freedom: float
    """Its degrees of freedom."""
    seeds: float = 0.0
    """Variance that the choice of seeds contributes: between seeds, over their number, beyond that."""
    seed_freedom: float = np.inf
    """K - 1; infinite for one seed, whose part is not known and not counted."""

    @property
    def variance(self) -> float:
        """Of the mean."""
        return self.patients + self.seeds


def components(runs: Sequence[Influence]) -> Components:
    """Split the variance of the mean over runs that differ in their seed and were tested on the same patients."""
    effects = np.stack([run.patients for run in runs]).astype(np.float64)
    k = len(runs)
    own = float(np.einsum("kp,kp->", effects, effects)) / k
    together = effects.mean(axis=0)
    values = np.array([run.value for run in runs])
    between = float(values.var(ddof=1)) if k > 1 else 0.0
    patients, seeds = split_variance(k, own, float(together @ together), between)
    return Components(
        value=float(values.mean()),
        patients=float(patients) + float(np.mean([run.extra for run in runs])),
        patient_freedom=min(run.freedom for run in runs),
        seeds=float(seeds),
        seed_freedom=k - 1 if k > 1 else np.inf,
    )


def split_variance(k: int, own: Any, together: Any, between: Any) -> tuple[Any, Any]:
    """The parts of the variance of a mean over seeds that patients and seeds contribute; of numbers or of arrays.

    Args:
        k: K.
        own: variance over patients of one seed's value, mean over seeds.
        together: variance over patients of the mean over seeds.
        between: variance of the values between seeds.
    """
    if k == 1:
        return together, 0.0 * together
    shared = np.maximum(0.0, (k * together - own) / (k - 1))  # mean covariance of two seeds
    interaction = np.maximum(0.0, own - shared)
    known = np.minimum(interaction, KNOWN * own)
    seeds = np.maximum(0.0, between - known) / k
    return shared + (np.maximum(np.maximum(between, known), LEAST * interaction) / k - seeds), seeds


def interval(runs: Sequence[Influence]) -> tuple[float, float] | tuple[None, None]:
    """95 % interval of the mean over seeds; of one run, over test patients only.

    Returns:
        (low, high) inside [0, 1], or (None, None) for a variance of zero.
    """
    parts = components(runs)
    ends = [run.boundary for run in runs]
    boundary = None if None in ends else min(end for end in ends if end is not None)
    return bounds(parts, boundary)


def bounds(parts: Components, boundary: float | None) -> tuple[float, float] | tuple[None, None]:
    """The interval of a mean with these components.

    Metrics with ends at 0 and 1 get Wilson's (1927) score interval for the number of independent images that would give
    the variance, value (1 - value) / variance: what Korn and Graubard's and Rao and Scott's effective sample size is
    for a proportion. It keeps inside 0 and 1 and has a width at both.

    Args:
        parts: value and variance.
        boundary: patients behind a value of exactly 0 or 1; None for a metric without such ends.
    """
    reach = critical(parts)
    if boundary is not None:
        at_end = not 0 < parts.value < 1
        if at_end and not parts.seeds:
            size = boundary
        elif at_end or parts.variance <= 0:
            return None, None
        else:
            size = parts.value * (1 - parts.value) / parts.variance
        return wilson(parts.value, size, reach)
    if parts.variance <= 0:
        return None, None
    half = reach * float(np.sqrt(parts.variance))
    return max(0.0, parts.value - half), min(1.0, parts.value + half)


def wilson(value: float, size: float, reach: float) -> tuple[float, float]:
    """Wilson's score interval of a proportion of `size` independent images, `reach` standard errors wide."""
    weight = reach**2 / size
    centre = (value + weight / 2) / (1 + weight)
    half = float(np.sqrt(weight * value * (1 - value) + weight**2 / 4)) / (1 + weight)
    return max(0.0, centre - half), min(1.0, centre + half)


def critical(parts: Components) -> float:
    """Standard errors that a 95 % interval reaches: Cochran and Cox's (1957) quantile.

    Of a sum of two variances, each with its own degrees of freedom, it is the mean of the two quantiles of Student's t,
    weighted by the variances.
    """
    tail = (1 - LEVEL) / 2
    patients = quantile(tail, parts.patient_freedom)
    if parts.variance <= 0 or parts.seeds == 0:
        return patients
    weighted = parts.patients * patients + parts.seeds * quantile(tail, parts.seed_freedom)
    return weighted / parts.variance


def difference(
    first: Sequence[Influence], second: Sequence[Influence], *, by_seed: bool, level: float = LEVEL
) -> Difference:
    """Two arms on the same patients: their difference with 95 % interval and two-sided p.

    The interval is Banerjee's (1960), whose coverage is at least 95 % whatever the ratio of the two variances, and at
    every level, which a test of many rows needs; p is the level at which it reaches zero. Student's t has, for the
    patients' part, as many degrees of freedom as patients tell the arms apart, less one (for a proportion: those on
    whom the arms disagree), and the variance is the one that holds if nothing differs, so that a few patients cannot
    make a difference certain; for a proportion with one image per patient it is McNemar's.

    Args:
        first: influences of the first arm's runs, by seed.
        second: of the second arm's.
        by_seed: both arms hold the same seeds, so that seeds are compared one by one and what a seed shares between
            arms cancels.
        level: of the interval.
    """
    if by_seed:
        pairs = [(a.value - b.value, a.patients - b.patients) for a, b in zip(first, second, strict=True)]
        samples = [np.array([value for value, _ in pairs])]
        effects = [np.stack([effect for _, effect in pairs]).astype(np.float64)]
    else:
        samples = [sign * np.array([run.value for run in arm]) for sign, arm in ((1, first), (-1, second))]
        effects = [
            sign * np.stack([run.patients for run in arm]).astype(np.float64)
            for sign, arm in ((1, first), (-1, second))
        ]
    value = float(sum(sample.mean() for sample in samples))
    whole = np.sum([effect.mean(axis=0) for effect in effects], axis=0)
    shared = float(whole @ whole)
    # What seeds and patients do together is counted in both; it is taken out of the patients' part.
    doubled = sum(_interaction(effect) for effect in effects)
    seeds = [(float(s.var(ddof=1)) / len(s), len(s) - 1.0) for s in samples if len(s) > 1]
    carried = np.minimum.reduce([_carriers(arm) for arm in (first, second)]) if len(whole) else 1.0
    null = value**2 / carried
    freedom = max(_informative(whole) - 1, 0.5)
    parts = [(max(shared - doubled, 0.0) + null, freedom), *seeds]
    reach = _reach(parts, 1 - level)
    several = bool(seeds)
    return Difference(
        value=value,
        low=value - reach,
        high=value + reach,
        p=_p_value(value, parts),
        method=METHOD_SEEDS if several else METHOD,
    )


def _interaction(effects: np.ndarray) -> float:
    """Variance of a mean over seeds, effects (K, P), that comes from patients answering differently by seed."""
    k = len(effects)
    if k < 2:
        return 0.0
    together = effects.mean(axis=0)
    shared, own = float(together @ together), float(np.einsum("kp,kp->", effects, effects)) / k
    return shared - max(0.0, (k * shared - own) / (k - 1))


def _carriers(arm: Sequence[Influence]) -> float:
    """Patients that the arm's metric rests on."""
    ends = [run.boundary for run in arm if run.boundary is not None]
    return max(1.0, min(ends, default=float(np.count_nonzero(arm[0].patients))))


def _informative(effect: np.ndarray) -> float:
    """How many patients carry a difference: (sum of squares)^2 / sum of fourth powers, n for n alike of them."""
    squares = effect**2
    top = float(squares.sum())
    return top**2 / float(squares @ squares) if top > 0 else 1.0


def _reach(parts: Sequence[tuple[float, float]], level: float) -> float:
    """Half the width of Banerjee's interval for (variance, freedom)."""
    return float(np.sqrt(sum(variance * quantile(level / 2, freedom) ** 2 for variance, freedom in parts)))


def _p_value(value: float, parts: Sequence[tuple[float, float]]) -> float:
    """The level at which the interval reaches zero, by bisection of its logarithm down to 1e-12."""
    gap = abs(value)
    if gap <= 1e-12:
        return 1.0
    low, high = np.log(1e-12), 0.0
    for _ in range(50):
        middle = (low + high) / 2
        level = float(np.exp(middle))
        if _reach(parts, level) < gap:
            high = middle
        else:
            low = middle
    return float(np.exp(high))


def quantile(tail: float, freedom: float) -> float:
    """The value that Student's t exceeds with this chance, for any degrees of freedom above zero."""
    from scipy.special import ndtri, stdtrit

    if freedom > 1e6:
        return -float(ndtri(tail))
    return -float(stdtrit(freedom, tail))
