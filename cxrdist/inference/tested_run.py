"""A fine-tuned run together with what it predicted on one split, as its predictions.parquet holds it.

Shapes: N tested images, L labels learnt.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cxrdist.errors import InputError
from cxrdist.inference import network as networks
from cxrdist.inference.network import Encoder
from results import levels, schema
from results.run import Run
from results.stats.effects import thresholds_of
from results.stats.predictions import ScoreMatrix, score_matrices
from shards import ShardSet


@dataclass(frozen=True, kw_only=True)
class TestedRun:
    """One column of the explorer."""

    name: str
    """As it is shown."""
    network: Encoder
    """Its model."""
    matrix: ScoreMatrix
    """Scores and truths (N, L) of the labels it has learnt, samples by key."""
    thresholds: dict[str, float | None]
    """Per label the threshold its results use, chosen on validation; None = there is none."""
    rule: str
    """How thresholds were chosen."""

    __test__ = False  # no class of tests, whatever pytest thinks of its name


def names_of(runs: Sequence[str]) -> list[str]:
    """Short names that tell runs apart: the last part of their path, or as much of it as is needed."""
    parts = [Path(os.path.abspath(run)).parts for run in runs]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise InputError(f"{runs[0]} is named twice; name each run once")


def read(path: str, name: str, network: Encoder, shards: ShardSet) -> TestedRun:
    """What a run predicted on a split of a shard set.

    Args:
        path: the run's folder.
        name: as it is shown.
        network: its model.
        shards: the split; the set is found in the run's results by content.

    Raises:
        InputError: the run holds no predictions of that split.
    """
    run = Run.open(path)
    if not run.predictions.is_file() or not run.metrics.is_file():
        raise InputError(f"{path} holds no results; finish it with the command that made it")
    rows = schema.read_metrics(run.metrics).to_pylist()
    content = shards.card.sha256
    known = {(row[f"{kind}_dataset"], row[f"{kind}_dataset_hash"]) for row in rows for kind in ("test", "train")}
    names = {held for held, digest in known if digest == content or (digest is None and held == shards.card.name)}
    held = score_matrices(schema.read_predictions(run.predictions), str(shards.split), levels.IMAGE)
    found = next((matrix for (dataset, _), matrix in held.items() if dataset in names), None)
    if found is None:
        more = ", ".join(sorted({dataset for dataset, _ in held})) or f"no split {shards.split}"
        raise InputError(
            f"{path} has no predictions of split {shards.split} of {shards.path} ({more} it has); test it there first: "
            f"cxrdist evaluate {path} --shards {shards.path}"
        )
    assert network.classifier is not None
    learnt = [label for label in networks.learnt_labels(path, network.classifier) if label in found.labels]
    thresholds = thresholds_of(str(run.metrics), _tested_name(found.dataset, rows), None)
    rule = next((str(row["threshold_rule"]) for row in rows if row["threshold_rule"]), "balanced_accuracy")
    return TestedRun(
        name=name,
        network=network,
        matrix=found.only(learnt),
        thresholds={label: thresholds.get(label) for label in learnt},
        rule=rule,
    )


def _tested_name(dataset: str, rows: Sequence[dict]) -> str:
    """The test set whose thresholds hold for a dataset: itself, or any of the run's, since all use those of val."""
    tested = [str(row["test_dataset"]) for row in rows]
    return dataset if dataset in tested else tested[0]


def comparable(runs: Sequence[TestedRun]) -> list[str]:
    """Labels that all runs have learnt.

    Raises:
        InputError: none, or the runs were tested on different images.
    """
    first = runs[0]
    for other in runs[1:]:
        if not np.array_equal(first.matrix.keys, other.matrix.keys):
            raise InputError(f"{first.name} and {other.name} were tested on different images; look at each by itself")
    labels = [label for label in first.matrix.labels if all(label in run.matrix.labels for run in runs)]
    if not labels:
        raise InputError(f"{' and '.join(run.name for run in runs)} have no label in common; look at each by itself")
    return labels
