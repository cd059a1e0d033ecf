"""One metric of one run on one test set: what each label's error is made of."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np

from results.stats import influence
from results.stats.influence import Influence
from results.stats.predictions import ScoreMatrix


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tested:
    """One metric of one run on one test set, label by label."""

    single: dict[str, Influence | None]
    """Label -> influence; None where the metric is undefined."""
    few: frozenset[str]
    """Labels of too few patients."""
    images: dict[str, bytes]
    """Label -> digest of level, keys, patients and truths: equal ones are the same test."""


def of_matrix(matrix: ScoreMatrix, metric: str, thresholds: dict[str, float | None]) -> Tested:
    """Every label's influences of one metric."""
    total = int(matrix.patients.max(initial=-1)) + 1
    held = matrix.level.encode() + np.ascontiguousarray(matrix.keys).tobytes() + matrix.patients.tobytes()
    same = hashlib.blake2b(held).digest()
    single: dict[str, Influence | None] = {}
    few, images = set(), {}
    for j, label in enumerate(matrix.labels):
        truth, score, patients = matrix.column(label)
        images[label] = hashlib.blake2b(same + np.ascontiguousarray(matrix.truth[:, j]).tobytes()).digest()
        found = influence.influence(metric, truth, score, patients, thresholds.get(label), total)
        single[label] = (
            None if found is None else dataclasses.replace(found, patients=found.patients.astype(np.float32))
        )
        if influence.too_few(truth, patients):
            few.add(label)
    return Tested(single=single, few=frozenset(few), images=images)
