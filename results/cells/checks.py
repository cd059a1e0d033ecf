"""What a cell may average: runs of one configuration, tested on one test set, that differ in their seed."""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from results import configs, levels
from results.cells import config_keys
from results.collect import predictions_beside
from results.errors import InputError
from results.schema import MACRO, Row
from results.stats.predictions import ScoreMatrix, load_scores
from results.wording import count, listing

_MOST_NAMED = 4


def check(group: Sequence[Row], allow: Collection[str] = ()) -> None:
    """Refuse a cell whose runs differ in more than their seed.

    Args:
        group: the result rows of one cell, one a run.
        allow: names of `select.ALLOWANCES`: configs, sets and seeds lift one refusal each.

    Raises:
        InputError: several configurations, several test sets of one name, or two runs of one seed; naming what differs.
    """
    if len(group) < 2:
        return
    if "configs" not in allow:
        _refuse_configurations(group)
    if "sets" not in allow:
        _refuse_test_sets(group)
    if "seeds" not in allow:
        _refuse_seeds(group)


def _refuse_configurations(group: Sequence[Row]) -> None:
    varied = config_keys.differing(group)
    if not varied:
        return
    named = [f"{key} ({_values(values)})" for key, values in list(varied.items())[:_MOST_NAMED]]
    more = f" and {count(len(varied) - _MOST_NAMED, 'more key')}" if len(varied) > _MOST_NAMED else ""
    key, values = next(iter(varied.items()))
    raise InputError(
        f"runs of {len({config_keys.relevant(row) for row in group})} configurations fall into one cell; they differ in"
        f" {', '.join(named)}{more}; make {key} an axis (--rows or --columns), choose one with"
        f" --where {key}={_quoted(max(values, key=lambda value: (values[value], value)))}, or average them all the"
        " same with --allow configs"
    )


def _values(values: Counter[str]) -> str:
    """`0.1 in 2 runs, 0.2 in 1`."""
    words = [f"{value} in {n}" for value, n in sorted(values.items())[:_MOST_NAMED]]
    words[0] += " run" + ("" if sorted(values.items())[0][1] == 1 else "s")
    return ", ".join(words) + (", ..." if len(values) > _MOST_NAMED else "")


def _quoted(value: str) -> str:
    return f'"{value}"' if " " in value else value


def _refuse_test_sets(group: Sequence[Row]) -> None:
    name = group[0]["test_dataset"]
    first, *others = group
    for other in others:
        reason = _other_test_set(first, other)
        if reason:
            raise InputError(
                f"runs in one cell were tested on different test sets of the name {name}: {reason} ({first['run']} and"
                f" {other['run']}); evaluate them on one set, choose with --where, or average them anyway with"
                " --allow sets"
            )


def _other_test_set(first: Row, second: Row) -> str | None:
    """What shows that two rows of one test set's name do not stand on the same images and truths."""
    hashes = [row["test_dataset_hash"] for row in (first, second)]
    if None not in hashes and hashes[0] != hashes[1]:
        return f"shard sets {hashes[0][:12]} and {hashes[1][:12]}"
    names = ("n_patients",) if first["label"] == MACRO else ("n_pos", "n_neg", "n_patients")
    for column in names:
        values = [row[column] for row in (first, second)]
        if None not in values and values[0] != values[1]:
            return f"{column} is {values[0]} and {values[1]}"
    if None not in hashes:
        return None  # one content, and the counts agree: the same truths, without reading the predictions
    truths = [truths_of(row) for row in (first, second)]
    if None not in truths and truths[0] != truths[1]:
        return "their predictions hold other images or other truths"
    return None


def truths_of(row: Row) -> str | None:
    """A digest of the test images and truths behind a row; None when its predictions are gone."""
    path = predictions_beside(str(row["source"]))
    if path is None:
        return None
    label = None if row["label"] == MACRO else str(row["label"])
    place = (str(row["source"]), str(row["test_dataset"]), row["test_dataset_hash"], levels.of(row))
    return _digest(*place, label, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _digest(source: str, dataset: str, content: str | None, level: str, label: str | None, _written: int) -> str | None:
    matrix = _matrix(source, dataset, content, level, _written)
    if not isinstance(matrix, ScoreMatrix) or (label is not None and label not in matrix.labels):
        return None
    if label is None:  # which labels a mean goes over is another question
        held = "\0".join(matrix.keys.tolist())
    else:
        kept = matrix.truth[:, matrix.labels.index(label)]
        held = "\0".join(np.char.add(matrix.keys[kept >= 0], kept[kept >= 0].astype(str)).tolist())
    return hashlib.sha256(held.encode()).hexdigest()


@functools.lru_cache(maxsize=8)
def _matrix(source: str, dataset: str, content: str | None, level: str, _written: int) -> ScoreMatrix | str:
    return load_scores(source, dataset, content, level)


def _refuse_seeds(group: Sequence[Row]) -> None:
    seen: dict[Any, Row] = {}
    for row in group:
        first = seen.setdefault(row["seed"], row)
        if first is not row:
            raise InputError(
                f"two runs share seed {row['seed']} in one cell: {first['run']} and {row['run']}"
                f" ({_differences(first, row)}); choose with --where, or ask for both with --allow seeds"
            )


def _differences(first: Row, second: Row) -> str:
    """What tells two runs of one configuration and seed apart."""
    for column in ("n_labelled", "fraction_hash", "git_commit"):
        if first[column] != second[column]:
            return f"they differ in {column}: {first[column]} and {second[column]}"
    return f"signatures {first['signature']} and {second['signature']}"


def unknown_note(rows: Sequence[Row]) -> str | None:
    """A caution where it cannot be known that runs in one cell are of one configuration."""
    runs = {str(row["source"]) for row in rows if row.get(configs.COLUMN) is None}
    if not runs:
        return None
    return (
        f"Caution: the configuration of {count(len(runs), 'run')} is not recorded, so it is not known whether they"
        " differ in more than their seed."
    )


def mixture_note(groups: Sequence[Sequence[Row]]) -> str | None:
    """A caution where cells average runs of several configurations because that was asked for."""
    mixed = [config_keys.differing(group) for group in groups]
    held = [one for one in mixed if one]
    if not held:
        return None
    keys = sorted({key for one in held for key in one})
    which = listing(keys[:_MOST_NAMED]) + (" and others" if len(keys) > _MOST_NAMED else "")
    cells = f"{count(len(held), 'cell')} {'averages' if len(held) == 1 else 'average'}"
    return f"Caution: {cells} runs that differ in more than their seed, in {which}."


def beyond(rows: Sequence[Row], shown: Collection[str]) -> str | None:
    """A note on settings in which the cells of a table differ beyond what its axes show.

    An ensemble has no settings of its own, only its members': beside other runs that alone is said of it.
    """
    alone = [row for row in rows if "ensemble" not in (configs.config_of(row) or {})]
    found = config_keys.differing(alone)
    if len(alone) < len(rows):
        found = {key: values for key, values in config_keys.differing(rows).items() if key == "ensemble"} | found
    varied = {key: values for key, values in found.items() if not _shown(key, rows, shown)}
    if not varied:
        return None
    words = [f"{key} ({listing(sorted(values)[:_MOST_NAMED])})" for key, values in list(varied.items())[:6]]
    more = f" and {count(len(varied) - 6, 'more setting')}" if len(varied) > 6 else ""
    return f"The runs differ beyond what the table shows in {listing(words)}{more}."


_SAID_BY = {
    "shards": ("train_dataset",),
    "init": ("init",),
    "uncertain": ("label_policy",),
    "blanks": ("label_policy",),
}
"""Configuration keys that a column of another name says."""


def _shown(key: str, rows: Sequence[Row], shown: Collection[str]) -> bool:
    """Whether the axes shown say what a key is: its own column, or one that gives the key's value away."""
    if key in shown or any(axis in shown for axis in _SAID_BY.get(key, ())):
        return True
    if "variant" not in shown:
        return False
    values: dict[Any, set[str]] = {}
    for row in rows:
        values.setdefault(row["variant"], set()).add(config_keys.spell((configs.config_of(row) or {}).get(key)))
    return all(len(held) == 1 for held in values.values())
