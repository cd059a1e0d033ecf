"""What a trial needs of its shard sets, as far as their cards tell: splits, labels, label policies. Free of torch.

A login node refuses here, before a job waits for hours, what the training would refuse when it opens the sets.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cxrdist.core import shard_sets
from cxrdist.errors import InputError
from cxrdist.finetune.config import FinetuneConfig, words

CAUSES = ("bacterial_pneumonia", "viral_pneumonia")
"""Kinds of pneumonia, which only Kermany's file names tell; trained on when asked for."""

ANY_FINDING = "any_finding"
"""Derived label: some finding is positive, or no_finding is 0. Shard sets without a label in common share it."""


def check_sets(config: FinetuneConfig) -> None:
    """Refuse a trial that its shard sets cannot serve.

    Raises:
        InputError: no such set, split or label; a policy for something that is not a label; a further test set that
            shares no label.
    """
    card = shard_sets.card(shard_sets.absolute(config.shards))
    check_card(config, card)
    for place in words(config.eval_shards) or []:
        check_test_set(config, card, shard_sets.card(shard_sets.absolute(place)), place)


def check_card(config: FinetuneConfig, card: Any) -> None:
    """As `check_sets`, of the training set alone, whose card is given."""
    for split in ("train", "test"):
        _need_split(card, split, config.shards)
    need_studies(config.level, card.studies > 0, config.shards)
    labels = labels_of(card, words(config.labels), config.shards)
    check_policy(config.uncertain, (*labels, *card.labels))


def check_policy(uncertain: str | Mapping[str, str], labels: Sequence[str]) -> None:
    """Refuse a policy for something that is not a label: misspelt, it would silently have no effect.

    Args:
        uncertain: one policy for all labels, or one per label.
        labels: those there are; any other label that is known may be named too, for another set.

    Raises:
        InputError: naming it and the labels.
    """
    from shards.labels import known  # brings NumPy, which a login node need not load for other commands

    for name in () if isinstance(uncertain, str) else uncertain:
        if name != "default" and name not in labels and known(name) is None:
            there = ", ".join(dict.fromkeys(labels))
            raise InputError(f"uncertain names {name!r}, which is not a label; the labels are {there}")


def check_test_set(config: FinetuneConfig, card: Any, other: Any, place: str) -> None:
    """Refuse a further test set, by its card `other`, that shares no label with the trial's own set."""
    _need_split(other, "test", place)
    need_studies(config.level, other.studies > 0, place)
    labels = labels_of(card, words(config.labels), config.shards)
    if not set(testable(other)) & set(labels):
        raise InputError(
            f"{place}: none of its labels ({', '.join(other.labels)}) is among the trial's ({', '.join(labels)}); "
            f"fine-tune on labels that both have ({ANY_FINDING} is one that most have)"
        )


def need_studies(level: str, known: bool, place: str | os.PathLike[str]) -> None:
    """Refuse to score a shard set by study that does not say which study an image is of.

    Args:
        level: see `FinetuneConfig.level`.
        known: whether the set says it.
        place: the set, for the error.

    Raises:
        InputError: it is to be scored by study and has none.
    """
    if level != "image" and not known:
        raise InputError(
            f"{place} does not say which study an image is of (no study_id in its index), so level = {level} is not"
            " possible; use --level image, or convert it again if its source says it"
        )


def labels_of(card: Any, wanted: Sequence[str] | None, place: str) -> tuple[str, ...]:
    """The labels that a trial on a shard set has.

    Args:
        card: of the set.
        wanted: label names, any_finding among them if you like; None = all with a value in train, but for those of
            `default_labels`.
        place: where the set is, for the error.

    Raises:
        InputError: a label that the set does not have, or none at all.
    """
    if wanted is None:
        labels = tuple(default_labels(_with_values(card, "train")))
    else:
        from shards.labels import choose

        stored = [name for name in wanted if name != ANY_FINDING]
        try:
            labels = choose(stored, card.labels) if stored else ()
        except ValueError as error:
            raise InputError(f"{place}: {error}") from error
        labels = (*labels, *(name for name in wanted if name == ANY_FINDING))
    if not labels:
        raise InputError(f"{place}: split train has no labels; fine-tuning needs some")
    return labels


def default_labels(names: Iterable[str]) -> list[str]:
    """The labels that are trained when none are named: all, but no causes of a pneumonia that is a label itself.

    With them, a macro mean over Kermany's labels would be no number that others publish.
    """
    held = list(names)
    return [name for name in held if "pneumonia" not in held or name not in CAUSES]


def testable(card: Any) -> tuple[str, ...]:
    """The labels that a set's test split can test: those with a value there, and any_finding, made from them."""
    labels = _with_values(card, "test")
    return (*labels, ANY_FINDING) if labels else ()


def _with_values(card: Any, split: str) -> tuple[str, ...]:
    """Labels with a value somewhere in a split."""
    counts = card.counts[split]
    numbers = counts.get("labels", {})
    return tuple(name for name in card.labels if numbers.get(name, {}).get("null") != counts["n"])


def _need_split(card: Any, split: str, place: str) -> None:
    if split not in card.splits:
        raise InputError(f"{place} has no split {split!r}; it has {', '.join(card.splits) or 'none'}")
