"""Nested, patient-level, prevalence-stratified subsets of the training split, for label-efficiency studies."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shards.atomic import write_bytes
from shards.errors import InputError
from shards.index import Index
from shards.labels import POSITIVE
from shards.order import permutation

_WEYL = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd: multiples of it spread evenly over 0..2^64


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The samples of one label fraction: what was drawn, and a hash that says so in every result row."""

    keys: tuple[str, ...]
    """Keys of the samples, sorted."""

    rows: np.ndarray
    """Their row numbers in the index, int64 (n,), ascending."""

    fraction: float
    """Asked share of the samples, above 0 and at most 1."""

    seed: int
    """Seed of the draw; fractions of one seed are nested."""

    sha256: str
    """Hex sha256 of the sorted keys, each followed by a newline (UTF-8)."""

    n_patients: int
    """Number of patients among the samples."""

    def write(self, path: str | os.PathLike) -> None:
        """Write keys, fraction, seed, counts and hash as JSON, atomically."""
        content = {
            "fraction": self.fraction,
            "seed": self.seed,
            "sha256": self.sha256,
            "n_samples": len(self.keys),
            "n_patients": self.n_patients,
            "keys": list(self.keys),
        }
        write_bytes(Path(path), [json.dumps(content, indent=0, ensure_ascii=False).encode()])


def read_manifest(path: str | os.PathLike, index: Index) -> Manifest:
    """Read a manifest and find its samples in an index.

    Raises:
        InputError: when the file is not a manifest, its hash does not match, or the index lacks one of its keys.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        keys = tuple(content["keys"])
        fraction, seed, recorded = float(content["fraction"]), int(content["seed"]), content["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not a readable fraction manifest: {error}") from error
    if keys_sha256(keys) != recorded:
        raise InputError(f"{path}: the keys do not match the recorded sha256; draw the fraction again")
    rows = np.sort(index.find(keys))
    patients = len(np.unique(index.patient[rows]))
    return Manifest(keys=keys, rows=rows, fraction=fraction, seed=seed, sha256=recorded, n_patients=patients)


def fraction_manifest(
    index: Index, rows: np.ndarray, fraction: float, seed: int, labels: Sequence[str] | None = None
) -> Manifest:
    """Draw a fraction of the samples by whole patients, keeping each label's prevalence.

    Patients are sorted by which labels they have (rarest label first), then by their number of images, ties at
    random. Patient j of that list gets priority frac(j / golden ratio + random shift); a fraction takes the patients
    of lowest priority. Multiples of the golden ratio fill every stretch of the list evenly (Weyl's sequence, three-gap
    theorem), so each label and each label combination keeps its share, and because smaller fractions stop earlier in
    the same priority order, 1 % lies inside 10 % inside 25 %. The draw stops at the patient that brings the number of
    samples closest to `fraction`; it always holds at least one patient.

    Args:
        index: index of the shard set.
        rows: row numbers of the split to draw from, int64 (N,).
        fraction: share of the samples, above 0 and at most 1; 1 gives all rows.
        seed: seed of the draw.
        labels: labels to stratify by; None means all of the index. A patient has a label when one image is positive.

    Raises:
        InputError: for a fraction outside (0, 1], no rows, or a label the index lacks.
    """
    if not 0 < fraction <= 1:
        raise InputError(f"a label fraction is above 0 and at most 1, got {fraction}")
    rows = np.sort(np.asarray(rows, dtype=np.int64))
    if not len(rows):
        raise InputError("there are no samples to draw a label fraction from")
    if fraction < 1:
        rows = rows[_drawn(index, rows, fraction, seed, labels)]
    keys = tuple(sorted(index.keys(rows)))
    return Manifest(
        keys=keys,
        rows=rows,
        fraction=float(fraction),
        seed=int(seed),
        sha256=keys_sha256(keys),
        n_patients=len(np.unique(index.patient[rows])),
    )


def keys_sha256(keys: Sequence[str]) -> str:
    """Hex sha256 of the keys in the given order, each followed by a newline."""
    digest = hashlib.sha256()
    for key in keys:
        digest.update(key.encode() + b"\n")
    return digest.hexdigest()


def _drawn(index: Index, rows: np.ndarray, fraction: float, seed: int, labels: Sequence[str] | None) -> np.ndarray:
    """Mask over rows, bool (N,): the samples of the patients drawn."""
    _, patient = np.unique(index.patient[rows], return_inverse=True)
    images = np.bincount(patient)
    priority = np.empty(len(images), dtype=np.uint64)
    order = _stratified(index, rows, patient, images, seed, labels)
    shift = np.uint64(int(permutation(2**16, seed, 0, "fraction shift")[0]) << 48)
    priority[order] = np.arange(len(images), dtype=np.uint64) * _WEYL + shift  # wraps at 2^64: that is the frac()
    ranked = np.argsort(priority, kind="stable")
    taken = np.cumsum(images[ranked])
    count = int(np.argmin(np.abs(taken - fraction * len(rows)))) + 1
    chosen = np.zeros(len(images), dtype=bool)
    chosen[ranked[:count]] = True
    return chosen[patient]


def _stratified(
    index: Index, rows: np.ndarray, patient: np.ndarray, images: np.ndarray, seed: int, labels: Sequence[str] | None
) -> np.ndarray:
    """Patients sorted so that alike ones are neighbours: by labels, rarest first, then images, then at random."""
    names = index.labels if labels is None else labels
    has = np.zeros((len(names), len(images)), dtype=bool)
    for row, name in zip(has, names, strict=True):
        row[patient[index.label(name)[rows] == POSITIVE]] = True
    rarest_last = has[np.argsort(-has.sum(axis=1), kind="stable")]
    tie = permutation(len(images), seed, 0, "fraction ties")
    return np.lexsort((tie, images, *rarest_last))
