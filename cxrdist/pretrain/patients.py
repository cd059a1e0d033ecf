"""Pairs and negatives by patient: two images of one patient as the two views of a pair.

MICLe: Azizi et al., "Big self-supervised models advance medical image classification", ICCV 2021, section 3.2. A pair
is drawn anew each time; an image whose patient has no other one is paired with itself, as in SimCLR.

Legend: n samples of the pool, G global batch.
"""

from __future__ import annotations

import numpy as np
import torch

from cxrdist.core import rng
from cxrdist.errors import InputError
from shards import ShardSet, ShardUnion


def patients_of(shards: ShardSet | ShardUnion) -> np.ndarray:
    """A number for each sample's patient, int64 (n,); a sample without a patient id is a patient of its own."""
    if isinstance(shards, ShardUnion):
        return shards.patients
    return shards.index.patient[shards.rows].astype(np.int64)


class Partners:
    """Which image stands beside an image as its other view: a pure function of (seed, step, row).

    Args:
        patients: of each sample, int64 (n,).
        seed: of the run.

    Raises:
        InputError: no patient has two images.
    """

    def __init__(self, patients: np.ndarray, seed: int) -> None:
        self.seed = seed
        self._sorted = np.argsort(patients, kind="stable")
        ordered = patients[self._sorted]
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        counts = np.diff(np.r_[starts, len(ordered)])
        if counts.max() < 2:
            raise InputError("positives patient: no patient of the pool has two images; take --positives image")
        self._start, self._count, self._place = (np.empty(len(patients), dtype=np.int64) for _ in range(3))
        self._start[self._sorted] = np.repeat(starts, counts)
        self._count[self._sorted] = np.repeat(counts, counts)
        self._place[self._sorted] = np.arange(len(ordered)) - np.repeat(starts, counts)

    def __call__(self, step: int, positions: np.ndarray) -> np.ndarray:
        """The partners, int64 (G,), of the samples of a step's whole global batch, int64 (G,)."""
        luck = rng.uniform(self.seed, rng.Stream.PARTNER, step, len(positions), 1)[:, 0]
        others = self._count[positions] - 1
        drawn = np.minimum((luck * others).astype(np.int64), np.maximum(others - 1, 0))
        place = self._place[positions]
        drawn += drawn >= place  # past the image itself
        return np.where(
            others > 0, self._sorted[self._start[positions] + np.where(others > 0, drawn, place)], positions
        )


def names(positions: np.ndarray, partners: np.ndarray | None, patients: np.ndarray | None) -> torch.Tensor | None:
    """What stands at each place of the global batch, so that no view is told apart from another of the same.

    Args:
        positions: samples of the batch, int64 (G,).
        partners: samples of the second views, where they are others.
        patients: of every sample, where other images of a patient are no negatives.

    Returns:
        int64 (G,), or (2G,) for first and second views; None: all differ.
    """
    if patients is not None:
        return torch.from_numpy(patients[positions])
    if partners is not None:
        # A pair of one image with itself names no other view, but two pairs may hold the same image.
        once = np.concatenate([positions, partners[partners != positions]])
        repeats = len(np.unique(once)) < len(once)
        return torch.from_numpy(np.concatenate([positions, partners])) if repeats else None
    # The batch that closes an epoch is filled with images of the next one, and may hold one twice.
    return torch.from_numpy(positions) if len(np.unique(positions)) < len(positions) else None
