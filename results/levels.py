"""What a score is of: an image, or a study (one examination of one patient, which may have several images).

Predictions hold images, always. Where studies are asked for, `results.stats.predictions` makes them from the images
when it reads the predictions, and nowhere else; thresholds, metrics, intervals and tests then see studies as they would
see images.

Letters: N images, U studies, L labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

IMAGE, STUDY, STUDY_MAX = "image", "study", "study_max"

LEVELS = (IMAGE, STUDY, STUDY_MAX)
"""image: every image counts by itself. study: a study's score is the mean of its images' probabilities. study_max: the
highest of them."""

_ROWS = {IMAGE: "", STUDY: ", by study: mean over its images", STUDY_MAX: ", by study: highest of its images"}


def of(row: Mapping[str, Any]) -> str:
    """The level of a result row; image where it does not say."""
    return row.get("level") or IMAGE


def phrase(level: str) -> str:
    """What a caption adds behind a test set; empty for images."""
    return _ROWS.get(level, f", by {level}")


def unit(rows: Iterable[Mapping[str, Any]]) -> str:
    """What results are counted in: `images`, `studies`, or both."""
    held = {of(row) == IMAGE for row in rows}
    return "studies" if held == {False} else "images and studies" if len(held) > 1 else "images"


def units(patients: np.ndarray, studies: np.ndarray) -> np.ndarray:
    """The study of each image as codes 0..U-1, int64 (N,).

    A study is one of one patient: the same id under two patients is two studies. An image without an id is a study of
    its own.

    Args:
        patients: codes (N,), 0 or more.
        studies: codes (N,), -1 where no study is known.
    """
    known = studies >= 0
    count = int(studies.max(initial=-1)) + 1
    pair = np.where(known, patients * max(count, 1) + studies, 0)
    alone = int(pair.max(initial=0)) + 1 + np.arange(len(pair))
    return np.unique(np.where(known, pair, alone), return_inverse=True)[1].astype(np.int64)


def truths(of_unit: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Labels of studies, int8 (U, L): 1, 0, or -1 where none of the study's images counts.

    The images of a study carry one label in sets labelled by report (CheXpert, MIMIC). Where they differ, a study is
    positive for a finding if one of its images is, and negative if some are known and none is positive.

    Args:
        of_unit: codes (N,), see `units`.
        truth: int8 (N, L): 1, 0, or -1 where the label policy leaves the image out.
    """
    order, starts = _grouped(of_unit)
    return np.maximum.reduceat(truth[order], starts, axis=0) if len(starts) else truth[:0]


def contradictions(of_unit: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Codes of the studies that have images with and images without one and the same finding; arguments of `truths`."""
    order, starts = _grouped(of_unit)
    if not len(starts):
        return np.empty(0, np.int64)
    positive = np.maximum.reduceat(truth[order] == 1, starts, axis=0)
    negative = np.maximum.reduceat(truth[order] == 0, starts, axis=0)
    return np.flatnonzero((positive & negative).any(axis=1))


def scores(level: str, of_unit: np.ndarray, score: np.ndarray, scored: np.ndarray) -> np.ndarray:
    """Scores of studies, float64 (U, L), over all images of a study that were scored; 0 where none was.

    Args:
        level: study or study_max.
        of_unit: codes (N,), see `units`.
        score: (N, L) probabilities.
        scored: bool (N, L), which of them there are.
    """
    order, starts = _grouped(of_unit)
    if not len(starts):
        return score[:0]
    held = np.where(scored, score, 0.0)[order]
    if level == STUDY_MAX:
        return np.maximum.reduceat(held, starts, axis=0)
    number = np.add.reduceat(scored[order].astype(np.int64), starts, axis=0)
    return np.add.reduceat(held, starts, axis=0) / np.maximum(number, 1)


def _grouped(of_unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images in the order of their studies, and where each study begins."""
    order = np.argsort(of_unit, kind="stable")
    return order, np.flatnonzero(np.diff(of_unit[order], prepend=-1))
