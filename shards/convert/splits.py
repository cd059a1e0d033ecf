"""Cutting splits: seeded, by patient, and independent of the order of the input.

Every draw ranks names by sha256(seed, name): no random generator whose stream might change between versions, and
adding a patient does not reshuffle the others.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import pyarrow as pa

from shards.convert.config import DrawnSplits
from shards.convert.rows import coalesced, each, looked_up, ranks, with_column
from shards.convert.rows import groups as equal_names

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
    drawn = _draw(sizes, np.array(list(sizes.values()), dtype=np.int64), fraction, seed)
    return {name for name, taken in zip(sizes, drawn.tolist(), strict=True) if taken}


def draw_rows(groups: pa.ChunkedArray | pa.Array, fraction: float, seed: int) -> np.ndarray:
    """Return bool (N,): the samples of the groups that `draw_groups` draws."""
    code, first = equal_names(groups)
    sizes = np.bincount(code, minlength=len(first))
    return _draw(each(looked_up(groups, pa.array(first))), sizes, fraction, seed)[code]


def _draw(names: Iterable[str], sizes: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Return bool per name: whether the group is drawn."""
    drawn = np.zeros(len(sizes), dtype=bool)
    wanted = fraction * int(sizes.sum())
    if wanted <= 0 or len(sizes) < 2:
        return drawn
    order = np.lexsort(ranks(names, len(sizes), lambda name: rank(seed, name)))
    held = 0
    for group in order[:-1]:
        size = int(sizes[group])
        # A large patient near the end is taken only where that comes closer to the wanted number.
        if held and abs(held + size - wanted) > abs(held - wanted):
            break
        drawn[group] = True
        held += size
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
) -> pa.ChunkedArray:
    """Return what `cut_by_patient` does, for many samples."""
    code, first = equal_names(patients)
    sizes = np.bincount(code, minlength=len(first))
    test = _draw(each(looked_up(patients, pa.array(first))), sizes, test_fraction, seed)
    rest = np.flatnonzero(~test)
    left = int(sizes[rest].sum())
    share = min(1.0, val_fraction * len(patients) / left) if left else 0.0
    val = _draw(each(looked_up(patients, pa.array(first[rest]))), sizes[rest], share, seed + _VAL_SEED)
    split = np.where(test, 2, 0).astype(np.int8)
    split[rest[val]] = 1
    return looked_up(pa.array(["train", "val", "test"]), pa.array(split[code]))


def with_drawn_splits(rows: pa.Table, config: DrawnSplits) -> pa.Table:
    """Return rows with their splits drawn by patient; a sample without a patient id counts as its own patient."""
    patients = coalesced(rows, "patient_id", "key")
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
