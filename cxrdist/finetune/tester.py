"""Testing a model: predictions and metrics of a test split, every sample scored exactly once; a new trial's results.

Shapes: n samples, L labels.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from cxrdist.core.shard_sets import recorded
from cxrdist.errors import InputError
from cxrdist.finetune import labelled_data
from cxrdist.finetune.config import FinetuneConfig, words
from cxrdist.finetune.features import Network
from cxrdist.finetune.identity import trained_context
from cxrdist.finetune.input_checks import testable
from cxrdist.finetune.labelled_data import Split, TrialData
from cxrdist.finetune.parse import from_plain
from cxrdist.finetune.studies import check_studies
from results import levels, schema
from results.dataset_names import with_hash
from results.metric_names import COUNTS, METRICS
from results.provenance import git_commit
from results.run import Run
from results.schema import MACRO
from results.stats.scoring import metric_rows
from shards import ShardSet


def probabilities(logits: np.ndarray) -> np.ndarray:
    """The logistic function, float32."""
    return torch.sigmoid(torch.from_numpy(logits)).numpy()


def prediction_rows(
    run: str, dataset: str, split: Split, labels: Sequence[str], wanted: Sequence[str], scores: np.ndarray
) -> pa.Table:
    """PREDICTIONS rows, label by label; y_true is null where the label policy leaves a sample out.

    Args:
        run: name of the run.
        dataset: name of the dataset.
        split: the samples, with y and mask of the L `labels`.
        labels: columns of the split's y.
        wanted: labels to write.
        scores: probabilities (n, len(wanted)).
    """
    count, described = len(split), split.described
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
            **{
                name: pa.array(np.tile(values, len(wanted)), schema.PREDICTIONS.field(name).type, from_pandas=True)
                for name, values in described.items()
            },
        },
        schema=schema.PREDICTIONS,
    )


def rows_of(
    table: pa.Table,
    described: Mapping[str, Any],
    test: Split,
    labels: Sequence[str],
    unlearnt: Sequence[str],
    config: FinetuneConfig,
    level: str,
) -> list[dict[str, Any]]:
    """Rows of METRICS for one test set at one level; labels that could not be learnt are there, null, and counted.

    Args:
        table: predictions of the test set, and of the val set that thresholds come from.
        described: the columns of METRICS that describe the run and the test set.
        test: the test samples, with y and mask of `labels`.
        labels: columns of the test's y.
        unlearnt: those of them without a model.
        config: the run's, for the threshold rule and the bootstrap.
        level: one of `levels.LEVELS`.
    """
    described = {**described, "split_scheme": test.shards.card.split_scheme}
    rows = metric_rows(table, described, intervals=config.n_boot > 0, threshold_rule=config.threshold, level=level)
    for row in rows:
        if row["label"] == MACRO and unlearnt:
            row["n_labels_undefined"] += len(unlearnt)
    if not unlearnt:
        return rows
    truth = test.truth if level == levels.IMAGE else levels.truths(test.studies, test.truth)
    for label in unlearnt:
        y = truth[:, list(labels).index(label)]
        shared = {name: rows[0][name] for name in (*described, "test_dataset", "created_at", "level")}
        shared |= {"n_pos": int((y == 1).sum()), "n_neg": int((y == 0).sum()), "label": label, "value": None}
        rows += [shared | {"metric": metric} for metric in METRICS + COUNTS]
    return rows


@dataclass(frozen=True)
class Tested:
    """One test set, scored."""

    name: str
    """Of the set, within the run."""
    predictions: pa.Table
    """Of its test split."""
    rows: list[dict[str, Any]]
    """Of METRICS."""


class Tester:
    """Tests the model of one run on any number of shard sets, each time in the same way.

    Args:
        run: the run.
        config: its configuration, with the label policy and the level of the test.
        network: the model.
        described: the columns `OF_THE_RUN`.
        unlearnt: labels of the model that could not be learnt.
        val: predictions of the run's own val split, from which thresholds are chosen; None = there is none.
    """

    def __init__(
        self,
        run: Run,
        config: FinetuneConfig,
        network: Network,
        described: Mapping[str, Any],
        unlearnt: Sequence[str],
        val: pa.Table | None,
    ):
        self.run, self.config, self.network, self.val = run, config, network, val
        self.described, self.unlearnt = described, unlearnt
        self.labels: list[str] = network.model.facts["labels"]
        hashes = run.shard_hashes()
        self.own = described["train_dataset_hash"]
        self.at_training = set(hashes.values())
        plan = from_plain(run.read_config(), str(run.config))
        self.policy = labelled_data.policy_text(plan)

    def test(self, shards: ShardSet, name: str, more: Collection[str] = ()) -> Tested:
        """Score a test split, over the labels that the set and the model have; thresholds are those of the run.

        Args:
            shards: the test split.
            name: of the set, within the run.
            more: levels to score beside that of the configuration.

        Raises:
            InputError: no learnt label in common, or studies asked for where the images say none.
        """
        config, content = self.config, shards.card.sha256
        labels = self.labels if content == self.own else labels_shared(shards, self.labels, self.unlearnt)
        learnt = [label for label in labels if label not in self.unlearnt]
        split = labelled_data.split_of(shards, labels, config)
        wanted = list(dict.fromkeys((config.level, *more)))
        check_studies(split, wanted)
        columns = [self.labels.index(label) for label in learnt]
        scores = probabilities(self.network.logits(split)[:, columns])
        table = prediction_rows(self.run.path.name, name, split, labels, learnt, scores)
        policy = labelled_data.policy_text(config)
        as_trained = content in self.at_training and policy == self.policy
        described = {
            "run": self.run.path.name,
            "job": "finetune" if as_trained else "evaluate",
            "label_policy": policy,
            "test_dataset_hash": content,
            "git_commit": git_commit(),
            **self.described,
        }
        both = pa.concat_tables([table] if self.val is None else [table, self.val])
        unlearnt = [label for label in labels if label in self.unlearnt]
        rows = [row for level in wanted for row in rows_of(both, described, split, labels, unlearnt, config, level)]
        return Tested(name, table, rows)


def test_set(run: Run, place: str, stage: str) -> ShardSet:
    """The test split of a shard set that a run is tested on; at a place that the run knows, the set it knows.

    Raises:
        InputError: no such set or split, or another set than the run found at that place when it was made.
    """
    return labelled_data.opened(place, "test", stage, recorded(run, place))


def write_own(
    run: Run, config: FinetuneConfig, data: TrialData, network: Network, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Score val, test and the further test sets of a trial that has just been trained, and write both result files.

    Returns:
        The macro AUROC of the trial's own test set under "test_auroc", None where undefined.
    """
    name, content = data.card.name, data.card.sha256
    learnt = [label for label in data.labels if label not in data.unlearnt]
    val = None
    if data.val is not None and len(data.val):
        scores = probabilities(network.logits(data.val)[:, np.flatnonzero(data.trainable)])
        val = prediction_rows(run.path.name, name, data.val, data.labels, learnt, scores)
    described = trained_context(run, config, {**facts, "train_dataset": name, "train_dataset_hash": content})
    tester = Tester(run, config, network, described, data.unlearnt, val)
    tested = [tester.test(data.test.shards, name)]
    done = {content: name}
    for place in words(config.eval_shards) or []:
        shards = test_set(run, place, config.stage)
        if shards.card.sha256 not in done:
            done[shards.card.sha256] = free_name(shards.card, set(done.values()))
            tested.append(tester.test(shards, done[shards.card.sha256]))
    tables = [*([] if val is None else [val]), *(one.predictions for one in tested)]
    rows = [row for one in tested for row in one.rows]
    schema.write_predictions(run.predictions, pa.concat_tables(tables))
    schema.write_metrics(run.metrics, rows)
    own = (row["value"] for row in rows if row["label"] == MACRO and row["metric"] == "auroc")
    return {"test_auroc": next(own, None)}


def free_name(card: Any, taken: Collection[str]) -> str:
    """The card's name; with the start of its hash behind it where another set of the run has that name."""
    return card.name if card.name not in taken else with_hash(card.name, card.sha256)


def labels_shared(other: ShardSet, labels: Sequence[str], unlearnt: Sequence[str]) -> list[str]:
    """Labels of a test split that a model knows too, those that it could not learn among them.

    Raises:
        InputError: none that it has learnt.
    """
    shared = [label for label in testable(other.card) if label in labels]
    if all(label in unlearnt for label in shared):
        learnt = ", ".join(label for label in labels if label not in unlearnt)
        raise InputError(
            f"{other.path}: none of its labels ({', '.join(other.labels)}) is among those the model knows ({learnt});"
            " fine-tune on labels that both have (any_finding is one that most have)"
        )
    return shared
