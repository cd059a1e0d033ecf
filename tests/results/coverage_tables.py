"""How often intervals of predictive values, labels saved and calibration hold the truth, and gaps are found by chance.

    python -m tests.results.coverage_tables [predictive|gaps|saved|calibration] [--replicates 1000]

The model of scores is that of `tests.results.coverage`. What the intervals should hold is known in closed form.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr, ndtri

from results.stats import calibration, operating, saved_labels, uncertainty
from results.stats.influence import Influence, influence
from results.stats.saved_labels import Point
from results.tables.calibration import unbounded
from results.tables.subgroups import largest_gap
from tests.results.coverage import Patients

RATES = (0.8, 0.95)
"""True sensitivity and specificity."""

PREVALENCES = (0.02, 0.1, 0.5)

FRACTIONS = (0.01, 0.03, 0.1, 0.3, 1.0)
"""Shares of labels of the simulated curves."""


def predictive(rate: float, prevalence: float, *, n: int = 250, replicates: int = 1000) -> tuple[float, float]:
    """Coverage of the intervals of PPV and NPV at a prevalence; one to three images a patient, one seed."""
    generator = np.random.default_rng([int(1000 * rate), int(1000 * prevalence)])
    truths = (
        rate * prevalence / (rate * prevalence + (1 - rate) * (1 - prevalence)),
        rate * (1 - prevalence) / (rate * (1 - prevalence) + (1 - rate) * prevalence),
    )
    held, counted = np.zeros(2), np.zeros(2)
    for _ in range(replicates):
        data = Patients(generator, n, True)
        score = data.scores(generator, [ndtri(rate)])[0, 0]
        found = operating.rates(data.truth, score, data.patients, 0.5, prevalence=prevalence)
        for place, name in enumerate(("precision", "npv")):
            if (one := found[name]) is not None:
                low, high = uncertainty.interval([one])
                assert low is not None and high is not None
                held[place] += low <= truths[place] <= high
                counted[place] += 1
    return float(held[0] / counted[0]), float(held[1] / counted[1])


def gaps(metric: str, groups: int, seeds: int, *, n: int = 400, replicates: int = 1000) -> float:
    """How often the largest gap is significant (p < 0.05) where groups do not differ; seeds differ in strength."""
    generator = np.random.default_rng([groups, seeds, len(metric)])
    found = 0
    for _ in range(replicates):
        data = Patients(generator, n, True)
        group = generator.integers(0, groups, n)[data.patients]
        strengths = 0.7 + 0.05 * generator.normal(size=seeds)
        scores = data.scores(generator, strengths)[0]
        values: dict[str, list[list[Influence] | None]] = {}
        for name in range(groups):
            part = group == name
            runs = [influence(metric, data.truth[part], s[part], data.patients[part], 0.5, n) for s in scores]
            values[str(name)] = [[run for run in runs if run is not None]]
        gap = largest_gap(values, 0)
        assert gap is not None
        found += gap.p < 0.05
    return found / replicates


def saved(value: float, seeds: int, spread: float, *, n: int = 500, replicates: int = 500) -> float:
    """Coverage of the share at which a curve of AUROC from 0.65 to 0.8 reaches what another model has.

    Args:
        value: the other's true AUROC.
        seeds: of every point.
        spread: standard deviation of a seed's true AUROC.
        n: patients.
        replicates: test sets.
    """
    generator = np.random.default_rng([int(1000 * value), seeds, int(1e4 * spread)])
    x = np.log(FRACTIONS)
    curve = 0.65 + 0.15 * (x - x[0]) / (x[-1] - x[0])
    truth = float(np.exp(np.interp(value, curve, x)))
    held = 0
    for replicate in range(replicates):
        data = Patients(generator, n, False)
        areas = np.append(curve, value)[:, None] + spread * generator.normal(size=(len(curve) + 1, seeds))
        noise = ndtri(np.clip(data.scores(generator, [0.0] * seeds, arms=len(areas)), 1e-15, 1 - 1e-15))
        scores = ndtr(noise + np.sqrt(0.5) * ndtri(areas)[..., None] * np.where(data.truth, 1.0, -1.0))
        points = []
        for share, arm in zip((*FRACTIONS, 0.01), scores, strict=True):
            runs = [influence("auroc", data.truth, s, data.patients) for s in arm]
            points.append(Point(share=share, runs=[run for run in runs if run is not None]))
        found = saved_labels.reached(points[:-1], points[-1], resamples=1000, seed=replicate)
        assert found.low is not None and found.high is not None
        held += found.low <= truth <= found.high
    return held / replicates


def slopes(factor: float, shift: float, *, n: int = 300, replicates: int = 1000) -> tuple[float, float]:
    """Coverage of calibration slope and intercept; the images of a patient (one to three) are alike.

    Args:
        factor: by which logits are too large, with `shift` 0; the true slope is its inverse.
        shift: of the logits, with `factor` 1; the true intercept is minus it.
        n: patients.
        replicates: test sets.
    """
    generator = np.random.default_rng([int(100 * factor), int(100 * shift + 1000)])
    held = np.zeros(2)
    for _ in range(replicates):
        x = generator.normal(-1.0, 1.0, n)
        patients = np.repeat(np.arange(n), generator.integers(1, 4, n))
        truth = (generator.random(n) < 1 / (1 + np.exp(-x)))[patients]
        score = 1 / (1 + np.exp(-(factor * x + shift)))[patients]
        for place, (solve, wanted) in enumerate(((calibration.slope, 1 / factor), (calibration.intercept, -shift))):
            one = solve(truth, score, patients)
            assert one is not None
            low, high = unbounded([one])
            assert low is not None and high is not None
            held[place] += low <= wanted <= high
    return float(held[0] / replicates), float(held[1] / replicates)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables of benches/reports/statistics.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", default=["predictive", "gaps", "saved", "calibration"])
    parser.add_argument("--replicates", type=int, default=1000)
    options = parser.parse_args(argv)
    more = {"replicates": options.replicates}
    if "predictive" in options.part:
        print("| sensitivity, specificity | prevalence | PPV | NPV |\n|---:|---:|---:|---:|")
        for rate in RATES:
            for prevalence in PREVALENCES:
                ppv, npv = predictive(rate, prevalence, **more)
                print(f"| {rate} | {prevalence} | {ppv:.3f} | {npv:.3f} |", flush=True)
    if "gaps" in options.part:
        print("| metric | groups | 1 seed | 3 seeds |\n|---|---:|---:|---:|")
        for metric in ("auroc", "recall"):
            for groups in (2, 5):
                one, three = (gaps(metric, groups, seeds, **more) for seeds in (1, 3))
                print(f"| {metric} | {groups} | {one:.3f} | {three:.3f} |", flush=True)
    if "saved" in options.part:
        print("| AUROC reached | seeds | spread | coverage |\n|---:|---:|---:|---:|")
        for value in (0.68, 0.72, 0.79):
            for seeds, spread in ((1, 0.0), (3, 0.01), (5, 0.01)):
                print(f"| {value} | {seeds} | {spread} | {saved(value, seeds, spread, **more):.3f} |", flush=True)
    if "calibration" in options.part:
        print("| logits times | logits plus | slope | intercept |\n|---:|---:|---:|---:|")
        for factor, shift in ((1.0, 0.0), (2.0, 0.0), (0.5, 0.0), (1.0, 1.0)):
            slope, intercept = slopes(factor, shift, **more)
            shown = f"{intercept:.3f}" if factor == 1.0 else "-"
            print(f"| {factor} | {shift} | {slope:.3f} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
