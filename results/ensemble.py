"""Ensembles: the mean of what several runs predict, scored as a run of its own.

Runs that learnt from the same labelled images with the same seed and differ in anything else (initialisation, head,
mode, ...) are the members of one ensemble. The mean of their probabilities is what it predicts (Dietterich 2000).
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)
from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from results import configs, dataset_names, schema
from results.collect import collect
from results.errors import InputError
from results.identity import signature
from results.levels import LEVELS
from results.levels import of as level_of
from results.run import Run
from results.schema import MACRO, Row
from results.stats.scoring import metric_rows

SHARED = (
    "train_dataset", "train_dataset_hash", "label_policy", "label_fraction", "n_labelled", "fraction_hash", "seed",
    "n_val", "val_fraction", "threshold_rule", "level",
)  # fmt: skip
"""Columns in which the members of one ensemble agree; all else may differ."""
SUMS = ("n_parameters", "wall_seconds", "gpu_seconds")
_SAMPLE = ("dataset", "split", "key", "label")


def make(paths: Iterable[str], out: Path) -> tuple[list[Run], list[str]]:
    """Make one run for every set of labelled images and seed, in folders of `out` named by its members.

    Args:
        paths: finished fine-tuning runs, or folders of them (two sweeps, for example).
        out: a new folder, or one of an earlier call: ensembles that are complete stay as they are.

    Returns:
        The runs, and warnings about folders that could not be used.

    Raises:
        InputError: no ensemble has two members; two that do not have the same members but for labels and seed; members
            that were not tested on the same samples.
    """
    table, warnings = collect(list(paths))
    groups = _groups(table)
    _refuse_unequal(groups)
    return [_make(members, levels, out) for members, levels in _by_members(groups)], warnings


def _groups(table: pa.Table) -> list[list[Row]]:
    """One row a run (that of its own test set), those of an ensemble together, in the order of their configurations."""
    field = pc.field
    rows = table.filter(
        (field("job") == "finetune") & (field("label") == MACRO) & (field("metric") == "auroc")
        & (field("test_dataset") == field("train_dataset"))
    ).to_pylist()  # fmt: skip
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row["n_labels_undefined"]:
            raise InputError(
                f"{_folder(row)}: a label has no value in its results, so its ensemble would have other labels; use"
                " runs that learnt all their labels (--labels)"
            )
        groups.setdefault(tuple(row[name] for name in SHARED), []).append(row)
    return [sorted(group, key=_role) for group in groups.values()]


def _by_members(groups: Sequence[list[Row]]) -> list[tuple[list[Row], list[str]]]:
    """Ensembles, each with the levels at which all its members were scored."""
    found: dict[tuple[str, ...], tuple[list[Row], list[str]]] = {}
    for members in groups:
        _, held = found.setdefault(tuple(str(row["signature"]) for row in members), (members, []))
        held.append(level_of(members[0]))
    return [(members, sorted(held, key=LEVELS.index)) for members, held in found.values()]


def _folder(row: Row) -> Path:
    return Path(str(row["source"])).parent.parent


def _role(row: Row) -> str:
    """What a member is, without its labels and seed: the same in all ensembles."""
    config = {k: v for k, v in configs.parsed(row["config"]).items() if k != "label_fraction"} if row["config"] else {}
    return json.dumps([row["init"], row["mode"], row["arch"], row["init_hash"], config], sort_keys=True)


def _refuse_unequal(groups: Sequence[Sequence[Row]]) -> None:
    if not any(len(group) > 1 for group in groups):
        raise InputError(
            "no two runs learnt from the same labelled images with the same seed; name runs or sweeps that differ in"
            " what they start from, or in their heads"
        )
    whole = max(groups, key=len)
    for group in groups:
        if [_role(row) for row in group] != [_role(row) for row in whole]:
            raise InputError(
                f"label_fraction {group[0]['label_fraction']}, seed {group[0]['seed']}: the ensemble of"
                f" {_names(group)} has other members than that of label_fraction {whole[0]['label_fraction']}, seed"
                f" {whole[0]['seed']} ({_names(whole)}); finish or leave out the runs that differ"
            )


def _names(group: Sequence[Row]) -> str:
    return " + ".join(dict.fromkeys(str(row["init"]) for row in group))


def _make(members: Sequence[Row], levels: Sequence[str], out: Path) -> Run:
    name = signature({"ensemble": [row["signature"] for row in members]})
    sources = [str(_folder(row).resolve()) for row in members]
    run = Run.create(out / name, job="finetune", config={"ensemble": sources}, signature=name)
    if run.is_done and set(levels) <= set(schema.read_metrics(run.metrics)["level"].to_pylist()):
        return run
    tables = [_own_set(row, folder) for row, folder in zip(members, sources, strict=True)]
    predictions = _mean(tables, sources, name)
    context, rule = _context(members, name), _rule(members[0])
    rows = [row for level in levels for row in metric_rows(predictions, context, threshold_rule=rule, level=level)]
    run.results.mkdir(exist_ok=True)
    schema.write_predictions(run.predictions, predictions)
    schema.write_metrics(run.metrics, rows)
    value = next(row["value"] for row in rows if (row["label"], row["metric"]) == (MACRO, "auroc"))
    shared = {key: members[0][key] for key in ("n_labelled", "fraction_hash")}
    run.finish(members=len(members), test_auroc=value, **shared)
    return run


def _own_set(row: Row, folder: str) -> pa.Table:
    """A member's predictions on the set that it learnt from: other test sets have splits and contents of their own."""
    table = schema.read_predictions(Run(folder).predictions)
    known = pc.unique(table["dataset"]).to_pylist()
    name = dataset_names.in_run(str(row["train_dataset"]), row["train_dataset_hash"], known)
    return table.filter(pc.equal(table["dataset"], pa.scalar(name, pa.string())))


def _rule(row: Row) -> str:
    """How thresholds were chosen; runs from before the column say it in their configuration."""
    config = configs.parsed(row["config"]) if row["config"] else {}
    return str(row["threshold_rule"] or config.get("threshold", "balanced_accuracy"))


def _mean(tables: Sequence[pa.Table], sources: Sequence[str], name: str) -> pa.Table:
    """Predictions with the mean score of tables that must be of the same samples."""
    ordered = [table.sort_by([(column, "ascending") for column in _SAMPLE]) for table in tables]
    first = ordered[0]
    for table, source in zip(ordered[1:], sources[1:], strict=True):
        if any(not first[column].equals(table[column]) for column in (*_SAMPLE, "y_true")):
            raise InputError(
                f"{source} and {sources[0]} were not tested on the same samples, or not with the same labels"
            )
    scores = np.mean([table["y_score"].to_numpy().astype(np.float64) for table in ordered], axis=0)
    place = {column: first.column_names.index(column) for column in ("y_score", "run")}
    first = first.set_column(place["y_score"], "y_score", pa.array(scores.astype(np.float32), pa.float32()))
    return first.set_column(place["run"], "run", pa.array([name] * len(first), pa.string()))


def _context(members: Sequence[Row], name: str) -> dict[str, Any]:
    """What describes an ensemble in the results: what its members share, and where they differ all of it."""
    context = {column: members[0][column] for column in SHARED if column != "level"}
    context["train_dataset"] = dataset_names.plain(context["train_dataset"], context["train_dataset_hash"])
    for column in ("arch", "mode", "variant", "method", "pretrain_dataset", "pretrain_dataset_hash", "split_scheme"):
        held = list(dict.fromkeys(row[column] for row in members if row[column] is not None))
        context[column] = " + ".join(held) or None
    for column in SUMS:
        context[column] = sum(row[column] or 0 for row in members)
    config = {"label_fraction": members[0]["label_fraction"], "ensemble": [_role(row) for row in members]}
    content = {"test_dataset_hash": members[0]["test_dataset_hash"], "git_commit": members[0]["git_commit"]}
    described = {
        "run": name,
        "signature": name,
        "job": "finetune",
        "init": _names(members),
        "config": configs.config_text(config),
    }
    return context | content | described
