"""Cutting splits: seeded, by patient, and independent of the order of the input.

Every draw ranks names by sha256(seed, name): no random generator whose stream might change between versions, and
adding a patient does not reshuffle the others.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)


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
    wanted = fraction * len(groups)
    if wanted <= 0 or len(sizes) < 2:
        return set()
    drawn: set[str] = set()
    held = 0
    for name in sorted(sizes, key=lambda name: rank(seed, name))[: len(sizes) - 1]:
        # A large patient near the end is taken only where that comes closer to the wanted number.
        if drawn and abs(held + sizes[name] - wanted) > abs(held - wanted):
            break
        drawn.add(name)
        held += sizes[name]
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
    val = draw_groups(rest, share, seed + 1_000_003)
    return ["test" if name in test else "val" if name in val else "train" for name in patients]


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


def in_both(first: Iterable[str], second: Iterable[str]) -> list[str]:
    """Return the names found in both lists, sorted."""
    return sorted(set(first) & set(second))
