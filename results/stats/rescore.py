"""Numbers at another level than a run was tested at, from its predictions alone: no images, no GPU, nothing written."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)
from __future__ import annotations

import functools
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from results import configs, dataset_names, levels
from results.collect import COLLECTED, collect, predictions_beside
from results.errors import InputError
from results.schema import MACRO, read_metrics, read_predictions
from results.stats.scoring import metric_rows
from results.wording import count

Row = dict[str, Any]

_OF_THE_NUMBER = ("label", "metric", "value", "ci_low", "ci_high", "n_pos", "n_neg", "threshold", "n_patients")
_OF_THE_NUMBER += ("n_labels", "n_labels_undefined", "level")


def at_level(results: pa.Table, level: str) -> tuple[pa.Table, list[str]]:
    """The results with rows at a level for every run and test set that has some at another, and what to say of it.

    Rows that runs wrote at that level themselves stay and are not made again. Thresholds are chosen on the same run's
    val predictions, as `scoring.metric_rows` chooses them; where these say no study there are none, since thresholds of
    images are not those of studies (`cxrdist evaluate` looks the studies up). Intervals are left to `effects`, which
    reads predictions.

    Args:
        results: a table of `collect.COLLECTED`.
        level: one of `levels.LEVELS`.

    Returns:
        The table, and a note that counts the runs whose predictions are gone or do not say the studies.
    """
    tested = results.filter(pc.is_valid(results["label"]))
    there = {
        (row["source"], row["test_dataset"])
        for row in tested.filter(pc.equal(tested["level"], level)).select(["source", "test_dataset"]).to_pylist()
    }
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in tested.to_pylist():
        held = groups.setdefault((row["source"], row["test_dataset"]), [])
        if not held or levels.of(held[0]) == levels.of(row):
            held.append(row)
    found = [_rescored(place[0], rows, level) for place, rows in groups.items() if place not in there]
    added = [row for rows in found for row in rows]
    lacking = sum(not rows for rows in found)
    if added:
        results = pa.concat_tables([results, pa.Table.from_pylist(added, schema=results.schema)])
    if not lacking:
        return results, []
    why = "the predictions are gone or say no study"
    return results, [f"{count(lacking, 'test')} of a run left out: no scores by {level}, and {why}"]


def made(source: str, dataset: str, content: str | None, level: str) -> list[Row]:
    """The numbers of a run on one test set at a level, as `metric_rows` gives them; empty where they cannot be made.

    Args:
        source: the metrics file, as a collected table names it.
        dataset: the test set's name there.
        content: its hash there, `test_dataset_hash`.
        level: one of `levels.LEVELS`.
    """
    path = predictions_beside(source)
    try:
        return [] if path is None else _made(source, dataset, content, level, path.stat().st_mtime_ns)
    except (InputError, OSError):
        return []


@functools.lru_cache(maxsize=256)
def _made(source: str, dataset: str, content: str | None, level: str, _written: int) -> list[Row]:
    path = predictions_beside(source)
    assert path is not None
    predictions, own = read_predictions(path), read_metrics(Path(source)).slice(0, 1).to_pylist()[0]
    name = dataset_names.in_run(dataset, content, pc.unique(predictions["dataset"]).to_pylist())
    if name is None:
        return []
    field = pc.field
    val = predictions.filter(field("split") == "val")
    if level != levels.IMAGE:
        known = pc.unique(val.filter(pc.is_valid(val["study_id"]))["dataset"])
        val = val.filter(field("dataset").isin(known))
    part = pa.concat_tables([val, predictions.filter((field("split") == "test") & (field("dataset") == name))])
    rule = own["threshold_rule"] or (configs.config_of(own) or {}).get("threshold") or "balanced_accuracy"
    return metric_rows(part, {"train_dataset": own["train_dataset"]}, intervals=False, threshold_rule=rule, level=level)


def _rescored(source: str, others: list[Row], level: str) -> list[Row]:
    """Rows of COLLECTED for one run and test set, described as those of another level are."""
    first = others[0]
    rows = made(source, first["test_dataset"], first["test_dataset_hash"], level)
    if not rows:
        return []
    described = {name: first[name] for name in COLLECTED.names if name not in _OF_THE_NUMBER}
    scored = {row["label"] for row in rows}
    unlearnt = {row["label"] for row in others} - scored
    out = [described | {name: row[name] for name in _OF_THE_NUMBER} for row in rows]
    for row in out:
        if row["label"] == MACRO:
            row["n_labels_undefined"] += len(unlearnt)
    nothing = dict.fromkeys(_OF_THE_NUMBER)
    for row in others:
        if row["label"] in unlearnt:
            out.append(described | nothing | {"label": row["label"], "metric": row["metric"], "level": level})
    return out


def open_results(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], level: str | None = None
) -> tuple[pa.Table, list[str]]:
    """A table of COLLECTED from whatever a user names, and the warnings.

    Args:
        paths: as `collect`.
        level: one of `levels.LEVELS`, whose rows are made from predictions where runs do not have them; None adds none.
    """
    table, warnings = collect(paths)
    if level is None:
        return table, warnings
    table, notes = at_level(table, level)
    return table, [*warnings, *notes]
