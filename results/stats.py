"""Intervals and tests. Patients, not images, are the independent units throughout.

Letters: N images, L labels, P patients, B resamples, K distinct scores of positives.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from results.delong import Difference
from results.delong import delong as delong
from results.delong import delong_paired as delong_paired
from results.metrics import ECE_BINS, METRICS, PROBABILITY_METRICS, RANK_METRICS, calibration_bin

BLOCK_ELEMENTS = 2_000_000
"""Resample weights held at a time (int32), so that memory stays flat."""

CACHED_ELEMENTS = 250_000
"""Patient counts (float32) that are summed at a time: a megabyte, which a core keeps near."""


def resample_counts(n_patients: int, n_boot: int, seed: int, width: int = 0) -> Iterator[np.ndarray]:
    """How often each patient is drawn in each bootstrap resample, in blocks of int32 (b, P).

    A function of its three arguments only: two runs tested on the same patients get the same resamples,
    which is what makes a comparison paired. `width`, the images that the caller spreads each resample over, only
    bounds the blocks.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    block = max(1, min(n_boot, BLOCK_ELEMENTS // max(n_patients, width, 1)))
    for start in range(0, n_boot, block):
        rows = min(block, n_boot - start)
        drawn = generator.integers(0, n_patients, size=(rows, n_patients), dtype=np.int64)
        drawn += np.arange(rows)[:, None] * n_patients
        yield np.bincount(drawn.ravel(), minlength=rows * n_patients).reshape(rows, n_patients).astype(np.int32)


def bootstrap(
    truth: np.ndarray,
    score: np.ndarray,
    patients: np.ndarray,
    *,
    thresholds: Sequence[float | None] | None = None,
    metrics: Sequence[str] = METRICS,
    n_boot: int = 1000,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Metrics of every resample of patients (cluster bootstrap: all images of a drawn patient come along).

    Args:
        truth: int8 (N, L), 1, 0, or -1 for "does not count".
        score: (N, L) probabilities.
        patients: codes 0..P-1, (N,).
        thresholds: one per label; None where there is none.
        metrics: names among `metrics.METRICS`.
        n_boot: B.
        seed: of the resamples; shared by all labels, and by all calls with the same number of patients.

    Returns:
        metric -> float64 (B, L), NaN where a resample leaves it undefined.
    """
    n_labels = truth.shape[1]
    cuts = [None] * n_labels if thresholds is None else list(thresholds)
    out = {name: np.full((n_boot, n_labels), np.nan) for name in metrics}
    n_patients = int(patients.max()) + 1 if len(patients) else 0
    ranked = []
    if set(metrics) & set(RANK_METRICS):
        ranked = [_Ranked(truth[:, j], score[:, j], patients, n_patients) for j in range(n_labels)]
    linear = _Linear(truth, score, patients, cuts) if set(metrics) - set(RANK_METRICS) else None
    step = max(8, CACHED_ELEMENTS // max(n_patients, 1))
    start = 0
    for counts in resample_counts(n_patients, n_boot, seed, len(patients)):
        rows = slice(start, start + len(counts))
        for first in range(0, len(counts) if ranked else 0, step):
            some = np.ascontiguousarray(counts[first : first + step].T, dtype=np.float32)
            at = slice(start + first, start + first + some.shape[1])
            for j, label in enumerate(ranked):
                for name, values in label.evaluate(some, metrics).items():
                    out[name][at, j] = values
        if linear is not None:
            for name, values in linear.evaluate(counts).items():
                if name in out:
                    out[name][rows] = values
        start = rows.stop
    return out


class _Ranked:
    """One label sorted by score once. A resample is then a sum of patient counts per stretch of the ranking.

    The K groups of equal scores that hold a positive cut the ranking; positives and negatives of a group and the
    negatives above it are 3 K + 1 sums over patients, which one sparse matrix makes of the patient counts.
    """

    def __init__(self, truth: np.ndarray, score: np.ndarray, patients: np.ndarray, n_patients: int) -> None:
        from scipy import sparse

        counted = np.flatnonzero(truth >= 0)
        order = counted[np.argsort(-score[counted], kind="stable")]
        ranked, positive = score[order], truth[order] == 1
        self.empty = not positive.any() or bool(positive.all())
        if self.empty:
            return
        group = np.cumsum(np.append(0, np.diff(ranked) != 0))
        held = np.unique(group[positive])  # groups that hold a positive
        self.n_groups = k = len(held)
        place = np.searchsorted(held, group)  # the first held group that is not above the image
        tied = ~positive & (held[np.minimum(place, k - 1)] == group)
        self.ties = bool(tied.any())
        row = np.where(positive, place, np.where(tied, 2 * k + 1 + place, k + place))
        # Sums of counts are whole numbers, which float32 holds exactly up to 2^24 images in a resample.
        ones = np.ones(len(order), np.float32 if len(order) < 1 << 22 else np.float64)
        shape = ((3 if self.ties else 2) * k + 1, n_patients)
        self.sums = sparse.csr_matrix((ones, (row, patients[order])), shape=shape)

    def evaluate(self, counts: np.ndarray, metrics: Sequence[str]) -> dict[str, np.ndarray]:
        """AUROC and average precision, as far as asked for, of patient counts float32 (P, b), each (b,)."""
        if self.empty:
            return {}
        k = self.n_groups
        sums = np.ascontiguousarray((self.sums @ counts).T)  # (b, 2 K + 1 or 3 K + 1)
        hits, above, tied = sums[:, :k], sums[:, k : 2 * k + 1], sums[:, 2 * k + 1 :]
        false_last = np.cumsum(above[:, :k] + tied if self.ties else above[:, :k], axis=1)  # not below each group
        n_pos = hits.sum(axis=1).astype(np.float64)
        n_neg = (false_last[:, -1] + above[:, k]).astype(np.float64)
        out = {}
        with np.errstate(invalid="ignore", divide="ignore"):
            both = np.where((n_pos > 0) & (n_neg > 0), 1.0, np.nan)
            if "auroc" in metrics:
                false = _dot(hits, false_last) - (_dot(hits, tied) / 2 if self.ties else 0.0)
                out["auroc"] = both * (n_pos * n_neg - false) / (n_pos * n_neg)
            if "auprc" in metrics:
                hits_last = np.cumsum(hits, axis=1, dtype=np.float64)
                precision = np.where(hits > 0, hits_last / (hits_last + false_last), 0.0)
                out["auprc"] = both * _dot(hits, precision) / n_pos
        return out


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Sum over columns of the products, summed in float64, (b,)."""
    return np.einsum("bk,bk->b", a, b, dtype=np.float64)


class _Linear:
    """Metrics made of sums over images: summed per patient once, then one matrix product per block of resamples."""

    def __init__(
        self, truth: np.ndarray, score: np.ndarray, patients: np.ndarray, thresholds: Sequence[float | None]
    ) -> None:
        self.n_labels = truth.shape[1]
        self.has_threshold = np.array([t is not None for t in thresholds])
        cut = np.array([np.inf if t is None else t for t in thresholds])
        counted, positive, called = truth >= 0, truth == 1, score >= cut
        gap = np.where(counted, positive - score, 0.0)
        columns = [counted & positive & called, counted & ~positive & called]
        columns += [counted & positive, counted & ~positive, gap**2]
        bins = calibration_bin(score)
        columns += [np.where(bins == number, gap, 0.0) for number in range(ECE_BINS)]
        n_patients = int(patients.max()) + 1
        self.sums = np.zeros((n_patients, len(columns), self.n_labels))
        order = np.argsort(patients, kind="stable")
        present, starts = np.unique(patients[order], return_index=True)
        for place, column in enumerate(columns):
            self.sums[present, place] = np.add.reduceat(column[order].astype(np.float64), starts, axis=0)

    def evaluate(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """Threshold and probability metrics of patient counts (b, P), each (b, L)."""
        flat = self.sums.reshape(len(self.sums), -1)
        sums = (counts.astype(np.float64) @ flat).reshape(len(counts), -1, self.n_labels)
        tp, fp, n_pos, n_neg, squared = (sums[:, place] for place in range(5))
        fn, tn, total = n_pos - tp, n_neg - fp, n_pos + n_neg
        with np.errstate(invalid="ignore", divide="ignore"):
            both = np.where((n_pos > 0) & (n_neg > 0), 1.0, np.nan)
            at = both * np.where(self.has_threshold, 1.0, np.nan)
            recall, specificity = at * tp / n_pos, at * tn / n_neg
            return {
                "accuracy": at * (tp + tn) / total,
                "balanced_accuracy": (recall + specificity) / 2,
                "precision": at * tp / (tp + fp),
                "recall": recall,
                "specificity": specificity,
                "f1": at * 2 * tp / (2 * tp + fp + fn),
                "brier": both * squared / total,
                "ece": both * np.abs(sums[:, 5:]).sum(axis=1) / total,
            }


assert set(PROBABILITY_METRICS) == {"brier", "ece"}


def interval(resampled: np.ndarray, level: float = 0.95) -> tuple[float | None, float | None]:
    """Percentile interval of resampled values (B,); NaN ones are left out.

    Returns:
        (low, high), or (None, None) when half of the resamples or more leave the value undefined.
    """
    defined = resampled[np.isfinite(resampled)]
    if 2 * len(defined) <= len(resampled) or not len(defined):
        return None, None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_difference(first: np.ndarray, second: np.ndarray, value: float) -> Difference | None:
    """Compare two arms whose runs were resampled on the same patients.

    With one run an arm: the percentile interval of the resampled differences, and a two-sided p that cannot fall below
    2 / (B + 1). With several seeds the error has two sources, patients and seeds. Drawing three seeds with replacement
    would call every difference certain in whose sign the three agree, which happens to nothing in one case of four; so
    the variance over resamples of the mean difference and the variance of a mean over seeds are added, and Student's t
    is used with Satterthwaite's (1946) degrees of freedom, those of the patients' part taken as infinite. Arms with
    equally many seeds are compared seed by seed, so that what a seed shares between arms cancels.

    Args:
        first: resampled metric of the first arm's runs, (S, B), runs ordered by seed.
        second: the second arm's, (T, B), from the same resamples.
        value: the difference on the actual data, first minus second.

    Returns:
        The difference with its 95 % interval and two-sided p; None when half of the resamples or more leave it
        undefined.
    """
    resampled = first.mean(axis=0) - second.mean(axis=0)
    low, high = interval(resampled)
    if low is None or high is None:
        return None
    defined = np.isfinite(resampled)
    kept = resampled[defined]
    (s, _), (t, _) = first.shape, second.shape
    if max(s, t) == 1:
        tail = min(int((kept <= 0).sum()), int((kept >= 0).sum())) + 1
        p = min(1.0, 2 * tail / (len(kept) + 1))
        return Difference(value=value, low=low, high=high, p=p, method="paired patient bootstrap")
    arms = [first[:, defined].mean(axis=1), second[:, defined].mean(axis=1)]
    samples = [arms[0] - arms[1]] if s == t else [arm for arm in arms if len(arm) > 1]
    by_seed = [(float(sample.var(ddof=1)) / len(sample), len(sample) - 1) for sample in samples]
    variance = float(kept.var(ddof=1)) + sum(part for part, _ in by_seed)
    spread = sum(part**2 / freedom for part, freedom in by_seed)
    p, reach = _student(value, variance, variance**2 / spread if spread > 0 else np.inf)
    method = "paired patient bootstrap with Student's t over seeds"
    return Difference(value=value, low=value - reach, high=value + reach, p=p, method=method)


def _student(value: float, variance: float, freedom: float) -> tuple[float, float]:
    """Two-sided p of a value with this variance, and how far its 95 % interval reaches."""
    from scipy.special import stdtr, stdtrit

    freedom = min(freedom, 1e9)
    error = float(np.sqrt(variance))
    if error <= 1e-12:
        return (1.0 if abs(value) <= 1e-12 else 0.0), 0.0
    return float(2 * stdtr(freedom, -abs(value) / error)), float(stdtrit(freedom, 0.975)) * error


def holm(p_values: Sequence[float]) -> list[float]:
    """P values corrected for being many (Holm 1979), in the order given; each is compared with alpha itself."""
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty(len(order))
    running = 0.0
    for rank, place in enumerate(order):
        running = max(running, (len(order) - rank) * p_values[place])
        corrected[place] = min(1.0, running)
    return corrected.tolist()


def seed_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean over two or more seeds, by Student's t: mean -+ t(n-1) s / sqrt(n)."""
    array = np.asarray(values, dtype=np.float64)
    reach = t_quantile(len(array) - 1) * float(array.std(ddof=1)) / np.sqrt(len(array))
    return float(array.mean() - reach), float(array.mean() + reach)


def t_quantile(freedom: int) -> float:
    """The 0.975 quantile of Student's t, to four digits.

    Tabulated to 10 degrees of freedom, beyond by the expansion of Abramowitz and Stegun 26.7.5; importing SciPy for
    it would take longer than the rest of a table.
    """
    if freedom <= len(_T_975):
        return _T_975[freedom - 1]
    z = 1.959963984540054
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, 1))


_T_975 = (12.70620, 4.30265, 3.18245, 2.77645, 2.57058, 2.44691, 2.36462, 2.30600, 2.26216, 2.22814)
