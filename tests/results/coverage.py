"""How often printed intervals hold the truth, and how often tests find a difference where there is none.

    python -m tests.results.coverage [intervals|alike|tests|counts|bands|proportions] [--replicates 2000]

Patients and seeds are drawn anew in every replicate, and the package's own code makes the interval or the test. The
model: an image's score is normal, `strength` above zero when the finding is there and below when not; part of it is
shared by the images of a patient, part by the seeds, and each seed has a strength of its own. The value that the
intervals should hold is the mean over all patients and all seeds, known in closed form (of one seed: over all patients,
for that trained model, which is what such an interval promises).
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterator, Sequence

import numpy as np
from scipy.special import ndtr, ndtri

from results.figures.scores import Scores
from results.stats import influence, uncertainty

LEVELS = {"auroc": 0.8, "balanced_accuracy": 0.75}
"""Mean over seeds of the simulated metric."""

BETWEEN_SEEDS = 0.8
"""Correlation of two seeds' scores of an image."""

SEEDS = (1, 2, 3, 5)
"""Numbers of seeds."""

RATIOS = (0.0, 1.0, 3.0)
"""Standard deviation over seeds, in standard errors over patients."""

TEST_RATIOS = (*RATIOS, 10.0)
"""The same, of tests."""

TESTED = tuple((metric, several) for metric in LEVELS for several in (False, True))
"""Metrics that are tested, with one image per patient or several."""


class Patients:
    """A test set: truths and patients of its images."""

    def __init__(self, generator: np.random.Generator, n: int, several: bool, prevalence: float = 0.3) -> None:
        """Draw `n` patients of one image, or of one to three."""
        images = generator.integers(1, 4, n) if several else np.ones(n, int)
        self.patients = np.repeat(np.arange(n), images)
        own = generator.random(n) < prevalence
        flips = generator.random(len(self.patients)) < (0.1 if several else 0.0)
        self.truth = own[self.patients] ^ flips

    def of_counts(self, generator: np.random.Generator, positives: int, negatives: int) -> Patients:
        """Instead, this many positives and negatives, each a patient."""
        self.patients = np.arange(positives + negatives)
        self.truth = self.patients < positives
        return self

    def scores(
        self,
        generator: np.random.Generator,
        strengths: Sequence[float] | np.ndarray,
        arms: int = 1,
        alike: float = BETWEEN_SEEDS,
    ) -> np.ndarray:
        """Probabilities (arms, seeds, N); 0.5 is the threshold, `alike` the correlation of two seeds."""
        n, k = len(self.truth), len(strengths)
        shared = generator.normal(size=self.patients[-1] + 1)[self.patients]
        common = np.sqrt(0.5) * shared + np.sqrt(0.5) * generator.normal(size=n)
        own = generator.normal(size=(arms, k, n))
        noise = np.sqrt(alike) * common + np.sqrt(1 - alike) * own
        sign = np.where(self.truth, 1.0, -1.0)
        return ndtr(noise + np.asarray(strengths)[..., :, None] * sign)


def strength(metric: str, value: np.ndarray) -> np.ndarray:
    """The strength that gives a metric this value."""
    return ndtri(value) / (np.sqrt(2) if metric == "auroc" else 1.0)


def runs(metric: str, data: Patients, scores: np.ndarray) -> list[influence.Influence]:
    """The package's estimate for every seed, scores (K, N)."""
    found = [influence.influence(metric, data.truth, score, data.patients, 0.5) for score in scores]
    return [one for one in found if one is not None]


def test_patients(ratio: float) -> int:
    """Enough for seeds to differ by this much without leaving a metric's range."""
    return 150 if ratio <= 1 else 400 if ratio <= 3 else 4000


@functools.cache
def standard_error(metric: str, n: int, several: bool) -> float:
    """Of one seed's metric over test sets, by simulation."""
    generator = np.random.default_rng(99)
    fixed = [float(strength(metric, np.array(LEVELS[metric])))]
    values = []
    for _ in range(400):
        data = Patients(generator, n, several)
        values += [one.value for one in runs(metric, data, data.scores(generator, fixed)[0])]
    return float(np.std(values))


def levels(generator: np.random.Generator, metric: str, spread: float, shape: int | tuple[int, ...]) -> np.ndarray:
    """True values of seeds; their mean over all seeds is `LEVELS[metric]`, for both ends are cut alike."""
    middle = LEVELS[metric]
    reach = min(0.995 - middle, middle - 0.5)
    return middle + np.clip(spread * generator.normal(size=shape), -reach, reach)


def coverage(
    metric: str,
    ratio: float,
    several: bool,
    *,
    seeds: Sequence[int] = SEEDS,
    replicates: int = 2000,
    alike: float = BETWEEN_SEEDS,
) -> dict[int, float]:
    """Share of intervals that hold the truth, by number of seeds; the first seeds of a replicate serve all of them."""
    n, most = test_patients(ratio), max(seeds)
    generator = np.random.default_rng([int(ratio * 10), several, len(metric), int(alike * 100)])
    spread = ratio * standard_error(metric, n, several)
    held = dict.fromkeys(seeds, 0)
    for _ in range(replicates):
        data = Patients(generator, n, several)
        values = levels(generator, metric, spread, most)
        found = runs(metric, data, data.scores(generator, strength(metric, values), alike=alike)[0])
        for k in seeds:
            low, high = uncertainty.interval(found[:k])
            assert low is not None and high is not None
            held[k] += low <= (values[0] if k == 1 else LEVELS[metric]) <= high
    return {k: count / replicates for k, count in held.items()}


def null_p_values(
    metric: str, ratio: float, several: bool, *, seeds: Sequence[int] = SEEDS[1:], replicates: int = 2000
) -> dict[int, np.ndarray]:
    """p of the paired test where both arms are one method, (replicates,), by number of seeds."""
    n, most = test_patients(ratio), max(seeds)
    generator = np.random.default_rng([int(ratio * 10), several, len(metric), 7])
    spread = ratio * standard_error(metric, n, several)
    out = {k: np.empty(replicates) for k in seeds}
    for place in range(replicates):
        data = Patients(generator, n, several)
        values = levels(generator, metric, spread, (2, most))
        scores = data.scores(generator, strength(metric, values)[0], arms=2)
        # each arm's seeds have strengths of their own
        shift = (strength(metric, values)[1] - strength(metric, values)[0])[:, None] * np.where(data.truth, 1, -1)
        scores[1] = ndtr(ndtri(np.clip(scores[1], 1e-15, 1 - 1e-15)) + shift)
        first, second = (runs(metric, data, arm) for arm in scores)
        for k in seeds:
            out[k][place] = uncertainty.difference(first[:k], second[:k], by_seed=True).p
    return out


def any_bold(p_values: np.ndarray, rows: int = 5, level: float = 0.05) -> float:
    """How often Holm's correction over `rows` independent null comparisons lets at least one through."""
    groups = p_values[: len(p_values) // rows * rows].reshape(-1, rows)
    return float((groups.min(axis=1) < level / rows).mean())


def few_positives(positives: int, area: float, *, negatives: int = 150, replicates: int = 2000) -> tuple[float, float]:
    """Coverage and mean width for an AUROC of few positives."""
    generator = np.random.default_rng([positives, int(area * 100), 3])
    held, widths = 0, 0.0
    for _ in range(replicates):
        data = Patients(generator, 1, False).of_counts(generator, positives, negatives)
        scores = data.scores(generator, [ndtri(area) / np.sqrt(2)])[0]
        low, high = uncertainty.interval(runs("auroc", data, scores))
        assert low is not None and high is not None
        held += low - 1e-12 <= area <= high + 1e-12
        widths += high - low
    return held / replicates, widths / replicates


def few_positives_p(metric: str, positives: int, *, negatives: int = 150, replicates: int = 2000) -> np.ndarray:
    """p of two models equally good, with few positives."""
    generator = np.random.default_rng([positives, len(metric), 4])
    out = np.empty(replicates)
    for place in range(replicates):
        data = Patients(generator, 1, False).of_counts(generator, positives, negatives)
        arms = [runs(metric, data, one) for one in data.scores(generator, [0.6], arms=2)]
        out[place] = uncertainty.difference(arms[0], arms[1], by_seed=True).p
    return out


def proportion(share: float, patients: int, several: bool, *, replicates: int = 4000) -> float:
    """Coverage for a sensitivity."""
    generator = np.random.default_rng([int(share * 1000), patients, several])
    held = 0
    for _ in range(replicates):
        images = generator.integers(1, 4, patients) if several else np.ones(patients, int)
        owner = np.repeat(np.arange(patients), images)
        found = np.sqrt(0.6) * generator.normal(size=patients)[owner] + np.sqrt(0.4) * generator.normal(size=len(owner))
        truth = np.append(np.ones(len(owner), bool), np.zeros(20, bool))
        score = np.append(ndtr(found + ndtri(share)), np.zeros(20))
        owner = np.append(owner, patients + np.arange(20))
        one = influence.influence("recall", truth, score, owner, 0.5)
        assert one is not None
        low, high = uncertainty.interval([one])
        assert low is not None and high is not None
        held += low - 1e-12 <= share <= high + 1e-12
    return held / replicates


def bands(kind: str, positives: int, *, negatives: int = 150, replicates: int = 500) -> list[list[float]]:
    """Coverage of a curve's band (NaN where it has none), and of the percentiles of resampled patients, at four points.

    One trained model of AUROC 0.8, one image per patient; true positive rates at false positive rates (`roc`), or
    precisions at recalls (`precision-recall`), of 0.1, 0.2, 0.5 and 0.8.
    """
    from results.figures import bands as ours
    from results.figures import precision_recall, roc

    curve, carriers = {
        "roc": (roc.roc_curve, roc._positives),
        "precision-recall": (precision_recall.precision_recall_curve, precision_recall._called),
    }[kind]
    shift, points = float(2 * strength("auroc", np.array(0.8))), np.array([10, 20, 50, 80])
    at = points / 100
    if kind == "roc":
        truth = ndtr(shift + ndtri(at))
    else:
        false = negatives * ndtr(ndtri(at) - shift)
        truth = positives * at / (positives * at + false)
    generator = np.random.default_rng([positives, len(kind), 5])
    held, there = np.zeros((2, 4)), np.zeros((2, 4))
    for _ in range(replicates):
        data = Patients(generator, 1, False).of_counts(generator, positives, negatives)
        score = data.scores(generator, [shift / 2])[0, 0]
        run = Scores(truth=data.truth, score=score, patients=data.patients, threshold=None)
        found = ours.band([run], curve, carriers)
        low, high = np.quantile(ours._resampled([run], curve)[0], [0.025, 0.975], axis=0)
        for place, ends in enumerate(((found.low, found.high), (low, high))):
            held[place] += (ends[0][points] - 1e-9 <= truth) & (truth <= ends[1][points] + 1e-9)
            there[place] += np.isfinite(ends[0][points])
    with np.errstate(invalid="ignore"):
        return (held / there).tolist()


def head(*titles: str) -> str:
    """The first two lines of a Markdown table."""
    return f"\n| {' | '.join(titles)} |\n|{'---:|' * len(titles)}"


def tables(which: Sequence[str], replicates: int) -> Iterator[str]:
    """The report's tables, in Markdown."""
    if "intervals" in which:
        yield head("metric", "images per patient", "seed sd / patient SE", "1 seed", "2", "3", "5")
        for metric in LEVELS:
            for several in (False, True):
                for ratio in RATIOS:
                    shown = coverage(metric, ratio, several, replicates=replicates).values()
                    words = " | ".join(f"{one:.3f}" for one in shown)
                    yield f"| {metric} | {'1 to 3' if several else '1'} | {ratio:g} | {words} |"
    if "alike" in which:
        yield head("correlation of two seeds' scores", "seed sd / patient SE", "2 seeds", "3", "5")
        for alike in (0.5, 0.65, 0.8, 0.95):
            for ratio in RATIOS:
                shown = coverage("auroc", ratio, False, seeds=SEEDS[1:], replicates=replicates, alike=alike).values()
                yield f"| {alike:g} | {ratio:g} | {' | '.join(f'{one:.3f}' for one in shown)} |"
    if "tests" in which:
        yield head("metric", "images per patient", "seed sd / patient SE", "2 seeds: p < 0.05, any bold of 5", "3", "5")
        for metric, several in TESTED:
            for ratio in TEST_RATIOS:
                found = null_p_values(metric, ratio, several, replicates=replicates).values()
                words = " | ".join(f"{(p < 0.05).mean():.3f}, {any_bold(p):.3f}" for p in found)
                yield f"| {metric} | {'1 to 3' if several else '1'} | {ratio:g} | {words} |"
    if "counts" in which:
        yield head("positives", "AUROC 0.6", "0.76", "0.9", "0.97", "false positives, AUROC", "sensitivity")
        for m in (1, 2, 3, 5, 10, 20):
            words = [f"{few_positives(m, area, replicates=replicates)[0]:.3f}" for area in (0.6, 0.76, 0.9, 0.97)]
            for metric in ("auroc", "recall"):
                words.append(f"{(few_positives_p(metric, m, replicates=replicates) < 0.05).mean():.3f}")
            yield f"| {m} | {' | '.join(words)} |"
    if "bands" in which:
        at = ("at 0.1", "at 0.2", "at 0.5", "at 0.8")
        yield head("curve", "positives", *at, "percentiles: at 0.1", *at[1:])
        for kind in ("roc", "precision-recall"):
            for m in (3, 5, 10, 30, 100):
                found, percentiles = bands(kind, m, replicates=replicates)
                yield f"| {kind} | {m} | {' | '.join(f'{one:.3f}' for one in found + percentiles)} |"
    if "proportions" in which:
        yield head("sensitivity", "images per patient", "5 positive patients", "10", "30", "100")
        for share in (0.5, 0.8, 0.95, 0.99):
            for several in (False, True):
                words = [f"{proportion(share, n, several, replicates=replicates):.3f}" for n in (5, 10, 30, 100)]
                yield f"| {share} | {'1 to 3' if several else '1'} | {' | '.join(words)} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    known = ["intervals", "alike", "tests", "counts", "bands", "proportions"]
    parser.add_argument("which", nargs="*", default=known)
    parser.add_argument("--replicates", type=int, default=2000)
    asked = parser.parse_args()
    for line in tables(asked.which, asked.replicates):
        print(line, flush=True)
