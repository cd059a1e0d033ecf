"""`calibration`: reliability diagrams, from predictions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from results.cells.options import Options
from results.figures.scores import Scores, pooled_data
from results.figures.style import Drawing, hatch, legend_below, line_style, stacked
from results.stats.metrics import expected_calibration_error
from results.stats.recalibrate import sentence

PER_TEST_SET = True
"""A report draws it once for each test set."""


def draw(results: pa.Table, options: Options) -> Drawing:
    """Observed share of positives over the mean score in ten bins of equal width, above the images in each bin."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    data = pooled_data(results, options)
    figure, (axis, below) = stacked(width=4.2, heights=(3.4, 1.1))
    axis.plot([0, 1], [0, 1], color="#666666", linewidth=0.8, linestyle=":")
    width = 1 / BINS / (len(data.series) + 1)
    for place, series in enumerate(data.series):
        runs = data.pooled(series)
        bins = reliability(runs)
        seeds = max(len(series.runs[label]) for label in data.shared)
        shift = place - (len(data.series) - 1) / 2
        errors = np.stack([bins.share - bins.low, bins.high - bins.share])
        ece = float(np.mean([expected_calibration_error(run.truth, run.score) for run in runs]))
        name, style = f"{series.name} (ECE {ece:.3f})", line_style(place)
        axis.errorbar(bins.score + shift * 0.006, bins.share, yerr=errors, label=name, capsize=2, **style)
        centres = (bins.place + 0.5) / BINS + shift * width
        below.bar(centres, bins.images / seeds, width * 0.9, color=style["color"], hatch=hatch(place), linewidth=0)
    axis.set(xlim=(0, 1), ylim=(-0.02, 1.02), ylabel="Share of positives")
    below.set(yscale="log", xlim=(0, 1), xlabel="Mean score", ylabel=data.unit.capitalize())
    below.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
    below.yaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
    below.yaxis.set_minor_formatter(NullFormatter())
    legend_below(figure, (axis,))
    how = f" ({sentence(options.recalibrate)})" if options.recalibrate else ""
    images = f"{data.unit}{'' if len(data.shared) == 1 else ' of all labels'} (mean over seeds)"
    caption = (
        f"Calibration{how} in ten bins of equal width, with 95 % Wilson intervals that count patients, not {data.unit},"
        f" where these agree; below, {images} in each bin. ECE over 15 bins, mean over labels and seeds, has no"
        f" interval: it is too large on average, the more so the fewer the {data.unit}."
        f" {data.pooling}{data.sentence} Dotted: perfect."
    )
    return Drawing(figure=figure, caption=caption)


BINS = 10
"""Bins of a calibration figure."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bins:
    """The bins that hold images, each field an array over them."""

    place: np.ndarray
    """Number of the bin, 0 to 9."""
    score: np.ndarray
    """Mean score."""
    share: np.ndarray
    """Share of positives."""
    low: np.ndarray
    """Lower end of its 95 % interval."""
    high: np.ndarray
    """Upper end."""
    images: np.ndarray
    """Images, those of all runs and labels together."""


def reliability(runs: Sequence[Scores], bins: int = BINS) -> Bins:
    """Mean score, share of positives with its 95 % interval over patients, and images of each bin that holds some.

    The interval is Wilson's (1927) at the effective number of images: as many independent ones as would give the
    variance between patients (all images of a patient, in all runs, are one cluster). Where all images of a bin agree
    that variance is nothing, and the number is that of patients. So a bin with share 0 or 1 has an interval too.
    """
    patients = max(int(run.patients.max()) for run in runs) + 1
    sums = np.zeros((3, patients, bins))
    for run in runs:
        place = (run.patients, np.minimum((run.score * bins).astype(int), bins - 1))
        for target, amount in zip(sums, (np.ones(len(run.score)), run.score, run.truth), strict=True):
            np.add.at(target, place, amount)
    held = sums[0].sum(axis=0) > 0
    sums = sums[:, :, held]
    images, score, positives = sums.sum(axis=1)
    share = positives / images
    clusters = (sums[0] > 0).sum(axis=0)
    spread = ((sums[2] - share * sums[0]) ** 2).sum(axis=0) / images**2 * clusters / np.maximum(clusters - 1, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        effective = np.where(spread > 0, share * (1 - share) / spread, clusters)
    low, high = wilson(share, np.clip(effective, 1.0, images))
    return Bins(place=np.flatnonzero(held), score=score / images, share=share, low=low, high=high, images=images)


def wilson(share: np.ndarray, n: np.ndarray, z: float = 1.959963984540054) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's score interval (1927) of proportions `share` of `n` (need not be whole); it always holds the share."""
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return np.clip(centre - half, 0.0, share), np.clip(centre + half, share, 1.0)
