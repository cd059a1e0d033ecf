"""Cutting splits: seeded, by patient, and independent of the order of the input.

Every draw ranks names by sha256(seed, name): no random generator whose stream might change between versions, and
adding a patient does not reshuffle the others.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute

from shards.config import DrawnSplits
from shards.rows import each, one, ranks, with_column

Name = TypeVar("Name", bound=Hashable)
_VAL_SEED = 1_000_003
"""Added to the seed for val, so that it is not drawn as test was."""


def rank(seed: int, name: object) -> bytes:
    """Return a pseudo-random sorting key of a name."""
    return hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogateescape")).digest()


def draw_groups(groups: Sequence[str], fraction: float, seed: int) -> set[str]:
    """Draw whole groups (patients) until they hold about `fraction` of the samples.

    Args:
        groups: group of each sample, (N,).
        fraction: of the N samples, 0 to 1.
        seed: of the draw.

    Returns:
        the drawn groups; at least one and never all where there are two or more and 0 < fraction < 1.
    """
    sizes = Counter(groups)
    drawn = _draw(list(sizes), list(sizes.values()), fraction, seed)
    return {name for name, taken in zip(sizes, drawn.tolist(), strict=True) if taken}


def draw_rows(groups: pa.ChunkedArray | pa.Array, fraction: float, seed: int) -> np.ndarray:
    """Return bool (N,): the samples of the groups that `draw_groups` draws."""
    encoded = one(groups).dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    return _draw(encoded.dictionary, np.bincount(codes, minlength=1).tolist(), fraction, seed)[codes]


def _draw(names: Sequence[str] | pa.Array, sizes: Sequence[int], fraction: float, seed: int) -> np.ndarray:
    """Return bool per name: whether the group is drawn."""
    drawn = np.zeros(len(names), dtype=bool)
    wanted = fraction * sum(sizes)
    if wanted <= 0 or len(names) < 2:
        return drawn
    listed = each(names) if isinstance(names, pa.Array) else iter(names)
    order = np.lexsort(ranks(listed, len(names), lambda name: rank(seed, name)))
    held = 0
    for group in order[:-1].tolist():
        # A large patient near the end is taken only where that comes closer to the wanted number.
        if held and abs(held + sizes[group] - wanted) > abs(held - wanted):
            break
        drawn[group] = True
        held += sizes[group]
        if held >= wanted:
            break
    return drawn


def cut_by_patient(patients: Sequence[str], seed: int, *, val_fraction: float, test_fraction: float = 0.0) -> list[str]:
    """Return "train", "val" or "test" per sample, whole patients together.

    Args:
        patients: patient of each sample, (N,).
        seed: of the draw.
        val_fraction: of the N samples.
        test_fraction: of the N samples.
    """
    test = draw_groups(patients, test_fraction, seed)
    rest = [name for name in patients if name not in test]
    share = min(1.0, val_fraction * len(patients) / len(rest)) if rest else 0.0
    val = draw_groups(rest, share, seed + _VAL_SEED)
    return ["test" if name in test else "val" if name in val else "train" for name in patients]


def cut_rows(
    patients: pa.ChunkedArray | pa.Array, seed: int, *, val_fraction: float, test_fraction: float = 0.0
) -> pa.Array:
    """Return what `cut_by_patient` does, for many samples."""
    test = draw_rows(patients, test_fraction, seed)
    rest = one(patients).filter(pa.array(~test))
    share = min(1.0, val_fraction * len(patients) / len(rest)) if len(rest) else 0.0
    codes = np.where(test, 2, 0).astype(np.int8)
    codes[~test] = draw_rows(rest, share, seed + _VAL_SEED)
    return pa.array(["train", "val", "test"]).take(pa.array(codes))


def with_drawn_splits(rows: pa.Table, config: DrawnSplits) -> pa.Table:
    """Return rows with their splits drawn by patient; a sample of nobody known is a patient of its own."""
    patients = pa.compute.coalesce(rows["patient_id"], rows["key"])  # pyright: ignore[reportAttributeAccessIssue]
    drawn = cut_rows(patients, config.seed, val_fraction=config.val_fraction, test_fraction=config.test_fraction)
    return with_column(rows, "split", drawn)


def draw_stratified(classes: Mapping[Name, str], fraction: float, seed: int) -> set[Name]:
    """Draw floor(fraction * n) samples of every class, sample by sample.

    Args:
        classes: sample name -> class.
        fraction: 0 to 1.
        seed: of the draw.
    """
    drawn: set[Name] = set()
    for wanted in sorted(set(classes.values())):
        names = sorted((name for name, kind in classes.items() if kind == wanted), key=lambda name: rank(seed, name))
        drawn.update(names[: int(fraction * len(names) + 1e-9)])
    return drawn
