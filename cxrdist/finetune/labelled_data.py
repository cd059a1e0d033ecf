"""The samples and labels of one trial: which train samples its label fraction gives, what is masked, what is known.

Shapes: n samples of a split, L labels.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cxrdist.core import shard_sets
from cxrdist.errors import InputError
from cxrdist.finetune.config import FinetuneConfig, words
from cxrdist.finetune.input_checks import ANY_FINDING, labels_of
from results import levels
from shards import ShardSet
from shards.labels import NEGATIVE, NULL, POSITIVE, UNCERTAIN, known, resolve
from shards.read.card import check_content
from shards.read.fractions import Manifest, fraction_manifest

log = logging.getLogger("cxrdist.finetune")


@dataclass(frozen=True)
class Split:
    """Labelled samples of one split."""

    shards: ShardSet
    """The whole split."""
    positions: np.ndarray
    """Which of its samples are used, int64 (n,), ascending."""
    y: np.ndarray
    """float32 (n, L), 0 or 1."""
    mask: np.ndarray
    """bool (n, L), True where the label is known under the policy."""

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def name(self) -> str:
        """train, val or test."""
        return str(self.shards.split)

    @property
    def keys(self) -> np.ndarray:
        """Keys of the samples, str (n,)."""
        return self.shards.index.keys(self.shards.rows_at(self.positions))

    @property
    def patients(self) -> np.ndarray:
        """Patient ids of the samples, str (n,)."""
        return self.shards.index.patient_id(self.shards.rows_at(self.positions))

    @property
    def described(self) -> dict[str, np.ndarray]:
        """What the index says of each sample, by column of the predictions: study_id, view, sex (str or None), age."""
        index, rows = self.shards.index, self.shards.rows_at(self.positions)
        return {
            "study_id": index.study_id(rows),
            "view": index.view(rows),
            "sex": index.sex(rows),
            "age": index.age(rows),
        }

    @property
    def truth(self) -> np.ndarray:
        """The labels, int8 (n, L): 1, 0, or -1 where the policy leaves the sample out."""
        return np.where(self.mask, self.y, -1).astype(np.int8)

    @property
    def studies(self) -> np.ndarray:
        """The study of each sample as codes, int64 (n,); see `results.levels.units`."""
        names = self.described["study_id"]
        known = np.array([name is not None for name in names], bool)
        codes = np.full(len(self), -1)
        codes[known] = np.unique(names[known].astype(str), return_inverse=True)[1]
        return levels.units(np.unique(self.patients.astype(str), return_inverse=True)[1], codes)


@dataclass(frozen=True)
class TrialData:
    """Everything a trial learns from and is tested on."""

    card: Any
    """Card of the training shard set."""
    labels: tuple[str, ...]
    """The L labels."""
    trainable: np.ndarray
    """bool (L,): labels that have positives and negatives in the label fraction."""
    manifest: Manifest
    """The label fraction."""
    train: Split
    val: Split | None
    test: Split

    @property
    def unlearnt(self) -> list[str]:
        """Labels without positives or negatives in the label fraction."""
        return [name for name, good in zip(self.labels, self.trainable, strict=True) if not good]


NO_FINDINGS = ("no_finding", "support_devices")
"""Labels that are not findings of a disease."""


def opened(path: str, split: str, stage: str = "none", sha256: str | None = None) -> ShardSet:
    """One split of a shard set, staged first if asked for; trials that share a process share it.

    Args:
        path: its folder or URL.
        split: train, val or test.
        stage: see `FinetuneConfig.stage`.
        sha256: hash of the set that must be there; None = any.

    Raises:
        InputError: no such set or split, or another set than `sha256` says.
    """
    card = shard_sets.card(path)
    check_content(card, sha256, path)  # here too: a process that has opened the right one would not look again
    return _opened(path, card.sha256, split, stage)


@functools.lru_cache(maxsize=16)
def _opened(path: str, sha256: str, split: str, stage: str) -> ShardSet:
    return ShardSet(path, split, stage=stage, sha256=sha256)


@functools.lru_cache(maxsize=256)
def _manifest(sha256: str, path: str, stage: str, fraction: float, seed: int, labels: tuple[str, ...]) -> Manifest:
    """The label fraction of the train split; the same for every initialisation."""
    train = opened(path, "train", stage, sha256)
    return fraction_manifest(train.index, train.rows, fraction, seed, _strata(labels))


def load(config: FinetuneConfig, sha256: str | None = None) -> TrialData:
    """Open the shard set of a resolved configuration and draw its label fraction.

    Args:
        config: resolved.
        sha256: hash of the shard set that must be there; None = any.

    Raises:
        InputError: no such shard set, split or label; another set than `sha256` says; no label that can be learnt.
    """
    train = opened(config.shards, "train", config.stage, sha256)
    sha256 = train.card.sha256
    labels = labels_of(train.card, words(config.labels), config.shards)
    asked = (config.shards, config.stage, config.label_fraction, config.seed, labels)
    manifest = _manifest(sha256, *asked)
    chosen = split_of(train, labels, config, manifest.rows)
    known = chosen.mask.sum(0)
    positives = (chosen.y * chosen.mask).sum(0)
    trainable = (positives > 0) & (positives < known)
    for label, good, count in zip(labels, trainable, positives, strict=True):
        if not good:
            what = "positives" if count == 0 else "negatives"
            log.warning("label %s has no %s in this label fraction: its results are null", label, what)
    if not trainable.any():
        raise InputError(
            f"{config.shards}: label_fraction {config.label_fraction} with seed {config.seed} gives {len(chosen)}"
            f" images and no label with positives and negatives ({', '.join(labels)}); take a larger fraction"
        )
    return TrialData(
        card=train.card,
        labels=labels,
        trainable=trainable,
        manifest=manifest,
        train=chosen,
        val=_val(config, train, labels),
        test=split_of(opened(config.shards, "test", config.stage, sha256), labels, config),
    )


def _strata(labels: Sequence[str]) -> list[str] | None:
    """Labels that a fraction is stratified by; any_finding asks for all."""
    return None if ANY_FINDING in labels else list(labels)


def _val(config: FinetuneConfig, train: ShardSet, labels: tuple[str, ...]) -> Split | None:
    if "val" not in train.card.splits:
        log.warning("%s has no val split: no early stopping, no thresholds", config.shards)
        return None
    val = opened(config.shards, "val", config.stage, train.card.sha256)
    rows = None
    if config.val_fraction_too:
        rows = fraction_manifest(val.index, val.rows, config.label_fraction, config.seed, _strata(labels)).rows
    return split_of(val, labels, config, rows)


def split_of(shards: ShardSet, labels: Sequence[str], config: FinetuneConfig, rows: np.ndarray | None = None) -> Split:
    """A split's samples under the configuration's label policy; `rows` of the index limit it."""
    y, mask = resolve(
        values_of(shards, labels, shards.rows if rows is None else rows),
        _policy(config, labels),
        config.blanks,
        list(labels),
    )
    positions = np.arange(len(shards)) if rows is None else np.searchsorted(shards.rows, rows)
    return Split(shards, positions, y, mask)


def values_of(shards: ShardSet, labels: Sequence[str], rows: np.ndarray) -> np.ndarray:
    """Stored labels of rows, int8 (n, L): 1, 0, -1 or NULL; any_finding is made from the others."""
    out = np.empty((len(rows), len(labels)), np.int8)
    for column, name in enumerate(labels):
        out[:, column] = _any_finding(shards, rows) if name == ANY_FINDING else shards.index.label(name)[rows]
    return out


def _any_finding(shards: ShardSet, rows: np.ndarray) -> np.ndarray:
    findings = shards.index.labels_matrix([name for name in shards.labels if name not in NO_FINDINGS], rows)
    healthy = shards.index.label("no_finding")[rows] if "no_finding" in shards.labels else np.full(len(rows), NULL)
    out = np.where((findings == NEGATIVE).any(1) | (healthy == POSITIVE), NEGATIVE, NULL)
    out = np.where((findings == UNCERTAIN).any(1), UNCERTAIN, out)
    return np.where((findings == POSITIVE).any(1) | (healthy == NEGATIVE), POSITIVE, out)


def _policy(config: FinetuneConfig, labels: Sequence[str]) -> Any:
    """The uncertainty policy for these labels, whatever their spelling: those of other labels have nothing to say."""
    if isinstance(config.uncertain, str):
        return config.uncertain
    named = {name if name in labels else known(name) or name: policy for name, policy in config.uncertain.items()}
    return {name: policy for name, policy in named.items() if name == "default" or name in labels}


def policy_text(config: FinetuneConfig) -> str:
    """The label policy on one line, as results carry it: uncertain/blanks."""
    uncertain = config.uncertain
    if not isinstance(uncertain, str):
        uncertain = ",".join(f"{name}:{policy}" for name, policy in sorted(uncertain.items()))
    return f"{uncertain}/{config.blanks}"
