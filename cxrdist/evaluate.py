"""From a fine-tuned model to predictions.parquet and metrics.parquet: every test sample scored exactly once.

Shapes: n samples, L labels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from cxrdist import cells, classifier, trial_data
from cxrdist.device import pick_device, resolve_precision
from cxrdist.errors import InputError
from cxrdist.features import Network
from cxrdist.finetune_config import FinetuneConfig, words
from cxrdist.finetune_parse import from_plain
from cxrdist.pixels import locked
from cxrdist.places import absolute
from cxrdist.trial_data import Split, TrialData
from results import schema
from results.metrics import COUNTS, METRICS
from results.provenance import git_commit
from results.run import Run
from results.schema import MACRO
from results.scoring import metric_rows


def probabilities(logits: np.ndarray) -> np.ndarray:
    """The logistic function, float32."""
    return torch.sigmoid(torch.from_numpy(logits)).numpy()


def prediction_rows(
    run: str, dataset: str, split: Split, labels: Sequence[str], wanted: Sequence[str], scores: np.ndarray
) -> pa.Table:
    """PREDICTIONS rows, label by label; y_true is null where the label policy leaves a sample out.

    Args:
        run: name of the run.
        dataset: name of the data set.
        split: the samples, with y and mask of the L `labels`.
        labels: columns of the split's y.
        wanted: labels to write.
        scores: probabilities (n, len(wanted)).
    """
    count = len(split)
    columns = [list(labels).index(name) for name in wanted]
    y, mask = split.y[:, columns].T.ravel(), split.mask[:, columns].T.ravel()
    total = count * len(wanted)
    fixed = {"run": run, "dataset": dataset, "split": split.name}
    return pa.table(
        {
            **{name: pa.array(np.full(total, value, dtype=object), pa.string()) for name, value in fixed.items()},
            "key": pa.array(np.tile(split.keys, len(wanted)), pa.string()),
            "patient_id": pa.array(np.tile(split.patients, len(wanted)), pa.string()),
            "label": pa.array(np.repeat(np.array(wanted, dtype=object), count), pa.string()),
            "y_true": pa.array(y.astype(np.int8), pa.int8(), mask=~mask),
            "y_score": pa.array(scores.T.astype(np.float32).ravel(), pa.float32()),
        },
        schema=schema.PREDICTIONS,
    )


def context(run: Run, config: FinetuneConfig, data: Mapping[str, Any], job: str) -> dict[str, Any]:
    """What describes the run in every row of metrics.parquet.

    Args:
        run: the run folder.
        config: resolved.
        data: n_labelled, fraction_hash, train_dataset, n_parameters, wall_seconds, gpu_seconds.
        job: finetune or evaluate.
    """
    start = cells.read_start(config.init)
    return {
        "run": run.path.name,
        "signature": run.read_info()["signature"],
        "job": job,
        "arch": config.arch,
        "init": start.name,
        "init_signature": start.signature,
        "mode": config.mode,
        "pretrain_dataset": start.dataset,
        "label_policy": trial_data.policy_text(config),
        "label_fraction": config.label_fraction,
        "seed": config.seed,
        "variant": config.variant,
        "git_commit": git_commit(),
        **data,
    }


def rows_of(
    table: pa.Table,
    described: Mapping[str, Any],
    test: Split,
    labels: Sequence[str],
    unlearnt: Sequence[str],
    config: FinetuneConfig,
) -> list[dict[str, Any]]:
    """Rows of METRICS for one test set; labels that could not be learnt are there with null values, and counted.

    Args:
        table: predictions of the test set, and of the val set that thresholds come from.
        described: see `context`.
        test: the test samples, with y and mask of `labels`.
        labels: columns of the test's y.
        unlearnt: those of them without a model.
        config: the run's, for the threshold rule and the bootstrap.
    """
    described = {**described, "split_scheme": test.shards.card.split_scheme}
    rows = metric_rows(table, described, n_boot=config.n_boot, seed=config.seed, threshold_rule=config.threshold)
    for row in rows:
        if row["label"] == MACRO and unlearnt:
            row["n_labels_undefined"] += len(unlearnt)
    for label in unlearnt:
        y, mask = (part[:, list(labels).index(label)] for part in (test.y, test.mask))
        shared = {name: rows[0][name] for name in (*described, "test_dataset", "created_at")}
        shared |= {"n_pos": int(y[mask].sum()), "n_neg": int((1 - y[mask]).sum()), "label": label, "value": None}
        rows += [shared | {"metric": metric} for metric in METRICS + COUNTS]
    return rows


def dataset_name(card: Any, path: str, taken: Sequence[str]) -> str:
    """The card's name; with the folder's behind it where another set of the run has the same."""
    return card.name if card.name not in taken else f"{card.name}@{Path(path).name}"


def write_own(
    run: Run, config: FinetuneConfig, data: TrialData, network: Network, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Score val, test and the further test sets of a trial that has just been trained, and write both result files.

    Returns:
        The macro AUROC of the trial's own test set under "test_auroc", None where undefined.
    """
    learnt = [name for name, good in zip(data.labels, data.trainable, strict=True) if good]
    unlearnt = [name for name in data.labels if name not in learnt]
    columns = np.flatnonzero(data.trainable)
    name = data.card.name
    tables = []
    for split in (data.val, data.test):
        if split is not None and len(split):
            scores = probabilities(network.logits(split)[:, columns])
            tables.append(prediction_rows(run.path.name, name, split, data.labels, learnt, scores))
    described = context(run, config, {**facts, "train_dataset": name}, "finetune")
    rows = rows_of(pa.concat_tables(tables), described, data.test, data.labels, unlearnt, config)
    own = next((row["value"] for row in rows if row["label"] == MACRO and row["metric"] == "auroc"), None)
    val = tables[0] if data.val is not None else None
    taken = [name]
    for path in words(config.eval_shards) or []:
        more, more_rows = _elsewhere(run, config, network, path, learnt, val, described, taken)
        taken.append(more_rows[0]["test_dataset"])
        tables.append(more)
        rows += more_rows
    schema.write_predictions(run.predictions, pa.concat_tables(tables))
    schema.write_metrics(run.metrics, rows)
    return {"test_auroc": own}


def _elsewhere(
    run: Run,
    config: FinetuneConfig,
    network: Network,
    path: str,
    learnt: Sequence[str],
    val: pa.Table | None,
    described: Mapping[str, Any],
    taken: Sequence[str],
) -> tuple[pa.Table, list[dict[str, Any]]]:
    """Predictions and rows of another shard set's test split, over the labels that both have.

    Thresholds stay those chosen on the val split of the training set: the model is tested as it would be used.

    Raises:
        InputError: no label in common.
    """
    other = trial_data.opened(path, "test", config.stage)
    shared = labels_shared(other, path, learnt)
    split = trial_data.split_of(other, shared, config)
    columns = [network.model.facts["labels"].index(label) for label in shared]
    name = dataset_name(other.card, path, taken)
    scores = probabilities(network.logits(split)[:, columns])
    table = prediction_rows(run.path.name, name, split, shared, shared, scores)
    both = [table] if val is None else [table, val]
    return table, rows_of(pa.concat_tables(both), described, split, shared, [], config)


def labels_shared(other: Any, path: str, learnt: Sequence[str]) -> list[str]:
    """Labels of a test split that a model knows too.

    Raises:
        InputError: there is none.
    """
    shared = [label for label in trial_data.choose_labels(other, None, derived=True) if label in learnt]
    if not shared:
        raise InputError(
            f"{path}: none of its labels ({', '.join(other.labels)}) is among those the model knows"
            f" ({', '.join(learnt)}); fine-tune on labels that both have (any_finding is one that most have)"
        )
    return shared


def evaluate(
    path: str | Path,
    shards: Sequence[str],
    *,
    uncertain: Any = None,
    blanks: str | None = None,
    device: str = "auto",
    stage: Literal["none", "ram", "disk"] = "none",
) -> list[dict[str, Any]]:
    """Test a finished fine-tuning on other shard sets and add the numbers to its result files.

    Testing on the same set again replaces its rows. The run's own test set may be given, for another label policy.

    Args:
        path: the run.
        shards: folders or URLs of shard sets with a test split.
        uncertain: label policy in place of the run's; None = the run's.
        blanks: the same for labels not mentioned.
        device: auto, cpu or cuda.
        stage: where the shard sets are copied before reading (see `FinetuneConfig.stage`).

    Returns:
        The new rows of metrics.parquet.

    Raises:
        InputError: not a finished fine-tuning; no label in common.
    """
    run = Run.open(path)
    if not run.is_done or not run.model.is_file():
        raise InputError(f"{run.path} is not a finished fine-tuning run; finish it, then evaluate")
    config = dataclasses.replace(from_plain(run.read_config(), str(run.config)), device=device, cache=None)
    config = dataclasses.replace(config, stage=stage)
    if uncertain is not None or blanks is not None:
        config = dataclasses.replace(config, uncertain=uncertain or config.uncertain, blanks=blanks or config.blanks)
    model = classifier.load(run.model)
    where = pick_device(device)
    model.to(where)
    network = Network(config, model, resolve_precision(config.precision, where, model.facts["image_size"]))
    done = run.read_done()
    learnt = [name for name in model.facts["labels"] if name not in done.get("unlearnt", [])]
    with locked(run.path / ".results.lock"):
        kept, rows = schema.read_predictions(run.predictions), schema.read_metrics(run.metrics)
        first = rows.slice(0, 1).to_pylist()[0]
        names = ("train_dataset", "n_labelled", "fraction_hash", "n_parameters", "wall_seconds", "gpu_seconds")
        described = context(run, config, {name: first[name] for name in names}, "evaluate")
        own = str(first["train_dataset"])
        field = pc.field
        val = kept.filter((field("split") == "val") & (field("dataset") == own))
        added: list[dict[str, Any]] = []
        for place in map(absolute, shards):
            is_own = cells.card(place).sha256 == run.read_info()["shards"].get(config.shards)
            taken = [row["test_dataset"] for row in added] + ([] if is_own else [own])
            table, new = _elsewhere(run, config, network, place, learnt, val, described, taken)
            name = new[0]["test_dataset"]
            kept = pa.concat_tables([kept.filter(~((field("dataset") == name) & (field("split") == "test"))), table])
            rows = rows.filter(field("test_dataset") != name)
            rows = pa.concat_tables([rows, schema.metrics_table(new)])
            added += new
        schema.write_predictions(run.predictions, kept)
        schema.write_metrics(run.metrics, rows)
    return added
