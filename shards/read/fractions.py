"""Nested, patient-level, prevalence-stratified subsets of the training split, for label-efficiency studies.

Legend: N samples, P patients, L labels, K folds.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shards.atomic import write_bytes
from shards.errors import InputError
from shards.labels import POSITIVE
from shards.read.index import Index
from shards.read.order import permutation

_FOLDS = 100
_PARTS = 10
_CANDIDATES = 3


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
        if not all(isinstance(key, str) for key in keys):
            raise ValueError("its keys are not text")
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
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

    The patients are dealt to 100 folds of nearly the same number of images and of positive images of each label (the
    idea of iterative stratification, Sechidis et al. 2011, with whole patients), and within each fold to ten parts.
    Folds stand in an order whose every beginning is again balanced, and a fraction takes patients from the front: so
    1 % lies inside 10 % inside 25 %, and steps of 1 % are the most exact. The draw stops at the patient that brings
    the number of samples closest to `fraction`; it always holds at least one patient. It takes about 10 microseconds a
    patient.

    Args:
        index: index of the shard set.
        rows: row numbers of the split to draw from, int64 (N,).
        fraction: share of the samples, above 0 and at most 1; 1 gives all rows.
        seed: seed of the draw.
        labels: labels to stratify by; None means all of the index. Only positives are balanced.

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
    order = _priority(_counts(index, rows, patient, index.labels if labels is None else labels), seed)
    taken = np.cumsum(images[order])
    count = int(np.argmin(np.abs(taken - fraction * len(rows)))) + 1
    chosen = np.zeros(len(images), dtype=bool)
    chosen[order[:count]] = True
    return chosen[patient]


def _counts(index: Index, rows: np.ndarray, patient: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """Per patient the number of positive images of each label and, last, of images: float64 (P, L+1)."""
    positive = [np.bincount(patient, weights=index.label(name)[rows] == POSITIVE) for name in labels]
    return np.column_stack([*positive, np.bincount(patient)]).astype(np.float64)


def _priority(counts_PL: np.ndarray, seed: int) -> np.ndarray:
    """Patients in the order in which a growing fraction takes them, int64 (P,)."""
    tie = permutation(len(counts_PL), seed, 0, "fraction ties")
    fold = _dealt(counts_PL, tie, _FOLDS)
    order = [np.empty(0, dtype=np.int64)]
    for number in _balanced_order(_sums(counts_PL, fold, _FOLDS), seed, "folds"):
        members = np.flatnonzero(fold == number)
        part = _dealt(counts_PL[members], tie[members], _PARTS)
        first = _balanced_order(_sums(counts_PL[members], part, _PARTS), seed, f"parts of {number}")
        order.append(members[np.lexsort((tie[members], np.argsort(first)[part]))])
    return np.concatenate(order)


def _dealt(counts_PL: np.ndarray, tie: np.ndarray, folds: int) -> np.ndarray:
    """Deal patients to folds of equal make-up, int64 (P,): the weightiest first, each where it is needed most.

    A patient goes to the fold k with the least sum over labels of C_kl y_l / total_l, where C are the counts there so
    far and y the patient's: this keeps sum_kl C_kl^2 / total_l, and so the differences between folds, small.
    """
    weighted = counts_PL / np.maximum(counts_PL.sum(axis=0), 1)
    sums = np.zeros((folds, counts_PL.shape[1]))
    fold = np.empty(len(counts_PL), dtype=np.int64)
    for patient in np.lexsort((tie, -weighted.sum(axis=1))):
        fold[patient] = chosen = int((sums @ weighted[patient]).argmin())
        sums[chosen] += counts_PL[patient]
    return fold


def _sums(counts_PL: np.ndarray, fold: np.ndarray, folds: int) -> np.ndarray:
    """Counts of each fold, (folds, L+1)."""
    return np.column_stack([np.bincount(fold, weights=column, minlength=folds) for column in counts_PL.T])


def _balanced_order(sums_KL: np.ndarray, seed: int, stream: str) -> np.ndarray:
    """Folds in an order whose every beginning has about the make-up of the whole, int64 (K,).

    Each next fold is the best of three drawn from those left. Of more, the balance would gain little, and patients
    unlike the others would come last for every seed.
    """
    total = sums_KL.sum(axis=0)
    left, order, sofar = permutation(len(sums_KL), seed, 0, f"fraction {stream}"), [], np.zeros(len(total))
    for step in range(len(sums_KL)):
        left = left[permutation(len(left), seed, step, f"fraction {stream} left")]
        after = sofar + sums_KL[left[:_CANDIDATES]]
        share = after[:, -1:] / max(total[-1], 1)
        best = int(((after - share * total) ** 2 / np.maximum(total, 1)).sum(axis=1).argmin())
        sofar = after[best]
        order.append(left[best])
        left = np.delete(left, best)
    return np.array(order, dtype=np.int64)
