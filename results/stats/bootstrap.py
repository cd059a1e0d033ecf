"""Resamples of patients behind the bands of figures."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

BLOCK_ELEMENTS = 2_000_000
"""Resample weights held at a time (int32), so that memory stays flat."""


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
