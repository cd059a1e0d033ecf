"""Rows of metrics.parquet: each number recomputed from predictions.parquet, thresholds from val, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from sklearn import metrics as sk

from results.collect import collect
from results.errors import InputError
from results.metric_names import COUNTS, METRICS
from results.schema import (
    METRICS as METRICS_SCHEMA,
)
from results.schema import (
    PREDICTIONS,
    read_metrics,
    read_predictions,
    write_metrics,
    write_predictions,
)
from results.stats.scoring import metric_rows
from tests.results import simulate

LABELS = {"cardiomegaly": 0.8, "edema": 0.7}


def by_name(rows: list[dict]) -> dict[tuple[str, str], dict]:
    return {(row["label"], row["metric"]): row for row in rows}


def part(table: pa.Table, split: str, label: str) -> tuple[np.ndarray, np.ndarray]:
    rows = [r for r in table.to_pylist() if (r["split"], r["label"]) == (split, label) and r["y_true"] is not None]
    return np.array([r["y_true"] for r in rows]), np.array([r["y_score"] for r in rows])


def from_scikit(truth: np.ndarray, score: np.ndarray, cut: float) -> dict[str, float]:
    called = (score >= cut).astype(int)
    tn, fp, fn, tp = sk.confusion_matrix(truth, called, labels=[0, 1]).ravel()
    edges = np.minimum((score * 15).astype(int), 14)
    ece = sum(
        abs(truth[edges == b].mean() - score[edges == b].mean()) * (edges == b).mean() for b in set(edges.tolist())
    )
    return {
        "auroc": sk.roc_auc_score(truth, score),
        "auprc": sk.average_precision_score(truth, score),
        "accuracy": sk.accuracy_score(truth, called),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, called),
        "precision": sk.precision_score(truth, called),
        "recall": sk.recall_score(truth, called),
        "specificity": tn / (tn + fp),
        "f1": sk.f1_score(truth, called),
        "brier": sk.brier_score_loss(truth, score),
        "ece": ece,
        **{"tp": tp, "fp": fp, "tn": tn, "fn": fn},
    }


@pytest.mark.parametrize("quantised", [False, True], ids=["distinct scores", "ties"])
def test_every_number_on_disk_is_recomputed_from_predictions_on_disk(tmp_path: Path, quantised: bool) -> None:
    table = simulate.predictions(labels=LABELS, quantised=quantised)
    truth = table["y_true"].to_pylist()
    truth[5::11] = [None] * len(truth[5::11])  # a policy that ignores some
    table = table.set_column(6, "y_true", pa.array(truth, pa.int8()))
    write_predictions(tmp_path / "predictions.parquet", table)
    write_metrics(tmp_path / "metrics.parquet", metric_rows(table, {"train_dataset": "phantom"}))
    scores, numbers = read_predictions(tmp_path / "predictions.parquet"), read_metrics(tmp_path / "metrics.parquet")
    found = by_name(numbers.to_pylist())
    expected = {}
    for label in LABELS:
        val_truth, val_score = part(scores, "val", label)
        best = max(sk.balanced_accuracy_score(val_truth, val_score >= cut) for cut in val_score)
        cut = found[label, "accuracy"]["threshold"]
        assert sk.balanced_accuracy_score(val_truth, val_score >= cut) == pytest.approx(best)
        test_truth, test_score = part(scores, "test", label)
        for name, value in from_scikit(test_truth, test_score, cut).items():
            expected[label, name] = value
            assert found[label, name]["value"] == pytest.approx(value, abs=1e-6), (label, name)
        assert found[label, "auroc"]["n_pos"] == test_truth.sum()
        assert found[label, "auroc"]["n_neg"] == (1 - test_truth).sum()
    for name in METRICS:
        mean = np.mean([expected[label, name] for label in LABELS])
        assert found["macro", name]["value"] == pytest.approx(mean, abs=1e-6)
    assert len(found) == 2 * len(METRICS + COUNTS) + len(METRICS)


def test_label_without_both_classes_is_null_and_counted() -> None:
    table = simulate.predictions(labels=LABELS)
    constant = simulate.predictions(labels={"hernia": 0.7}, prevalence=0.0)
    found = by_name(metric_rows(pa.concat_tables([table, constant]), {}))
    for metric in METRICS:
        row = found["hernia", metric]
        assert (row["value"], row["ci_low"], row["ci_high"]) == (None, None, None)
    assert found["hernia", "auroc"]["n_pos"] == 0 and found["hernia", "auroc"]["n_neg"] == 200
    macro = found["macro", "auroc"]
    assert (macro["n_labels"], macro["n_labels_undefined"]) == (2, 1)
    mean = (found["cardiomegaly", "auroc"]["value"] + found["edema", "auroc"]["value"]) / 2
    assert macro["value"] == pytest.approx(mean)


def test_thresholds_do_not_look_at_test_labels() -> None:
    table = simulate.predictions(labels=LABELS)
    flipped = [
        1 - y if split == "test" else y
        for y, split in zip(table["y_true"].to_pylist(), table["split"].to_pylist(), strict=True)
    ]
    other = table.set_column(6, "y_true", pa.array(flipped))
    first, second = by_name(metric_rows(table, {}, intervals=False)), by_name(metric_rows(other, {}, intervals=False))
    for label in LABELS:
        assert first[label, "f1"]["threshold"] == second[label, "f1"]["threshold"] is not None
        assert first[label, "auroc"]["value"] == pytest.approx(1 - second[label, "auroc"]["value"])


def test_test_set_elsewhere_uses_the_threshold_of_the_training_sets_val() -> None:
    home = simulate.predictions(labels=LABELS, dataset="nih")
    away = simulate.predictions(labels=LABELS, dataset="chexpert", data_seed=9)
    rows = metric_rows(pa.concat_tables([home, away]), {"train_dataset": "nih"}, intervals=False)
    cuts = {(row["test_dataset"], row["threshold"]) for row in rows if row["label"] == "edema" and row["threshold"]}
    assert {name for name, _ in cuts} == {"nih", "chexpert"} and len({cut for _, cut in cuts}) == 1


def test_without_val_what_needs_a_threshold_is_null() -> None:
    table = simulate.predictions(labels=LABELS)
    found = by_name(metric_rows(table.filter(pc.field("split") == "test"), {}))
    assert found["edema", "accuracy"]["value"] is None and found["macro", "f1"]["value"] is None
    assert found["edema", "fn"]["value"] is None
    assert found["edema", "auroc"]["value"] is not None


def test_intervals_hold_the_value_and_repeat_with_their_seed() -> None:
    table = simulate.predictions(labels=LABELS)
    first = metric_rows(table, {"created_at": None}, intervals=True)
    again = metric_rows(table, {"created_at": None}, intervals=True)
    assert [(r["ci_low"], r["ci_high"]) for r in first] == [(r["ci_low"], r["ci_high"]) for r in again]
    for row in first:
        if row["metric"] in METRICS and row["metric"] != "ece":  # a bootstrap's ECE is biased upwards
            assert row["ci_low"] <= row["value"] <= row["ci_high"], row


def test_order_of_rows_changes_nothing() -> None:
    table = simulate.predictions(labels=LABELS)
    mixed = table.take(np.random.default_rng(0).permutation(len(table)))
    values = [[(r["value"], r["ci_low"], r["ci_high"]) for r in metric_rows(t, {})] for t in (table, mixed)]
    assert values[0] == values[1]


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("y_score", float("nan"), "not probabilities"),
        ("y_score", 1.2, "not probabilities"),
        ("y_true", 3, "y_true are not 0, 1 or null"),
        ("key", "test00001", "scored more than once"),
        ("patient_id", None, "patient_id is null"),
    ],
)
def test_unusable_predictions_are_refused(column: str, value: object, message: str) -> None:
    table = simulate.predictions(labels={"edema": 0.8})
    values = table[column].to_pylist()
    values[-1] = value
    place = table.column_names.index(column)
    with pytest.raises(InputError, match=message):
        metric_rows(table.set_column(place, column, pa.array(values)), {}, intervals=False)


def test_nan_scores_are_not_written(tmp_path: Path) -> None:
    table = simulate.predictions(labels={"edema": 0.8})
    bad = table.set_column(7, "y_score", pa.array([float("nan")] * len(table)))
    with pytest.raises(InputError, match="must be run again"):
        write_predictions(tmp_path / "p.parquet", bad)
    assert not list(tmp_path.iterdir())


def test_unknown_context_missing_columns_and_two_runs_at_once_are_refused() -> None:
    table = simulate.predictions(labels={"edema": 0.8})
    with pytest.raises(InputError, match="unknown context colour"):
        metric_rows(table, {"colour": "red"})
    with pytest.raises(InputError, match="missing y_score"):
        metric_rows(table.drop_columns(["y_score"]), {})
    with pytest.raises(InputError, match="2 runs in one table"):
        metric_rows(pa.concat_tables([table, simulate.predictions(labels={"edema": 0.8}, run="other")]), {})
    with pytest.raises(InputError, match="no test rows"):
        metric_rows(table.filter(pc.field("split") == "val"), {})


def test_layouts_are_the_contracts_and_carry_a_version(tmp_path: Path) -> None:
    assert PREDICTIONS.names[:8] == ["run", "dataset", "split", "key", "patient_id", "label", "y_true", "y_score"]
    assert PREDICTIONS.names[8:] == ["study_id", "view", "sex", "age"]
    contract = (
        "run signature job arch init init_signature mode pretrain_dataset train_dataset test_dataset split_scheme"
        " label_fraction n_labelled fraction_hash seed label metric value ci_low ci_high n_pos n_neg threshold"
        " gpu_seconds wall_seconds git_commit created_at"
    ).split()
    assert [name for name in METRICS_SCHEMA.names if name in contract] == contract
    run = simulate.finetune(tmp_path, intervals=False)
    table = pq.read_table(run.metrics)
    newer = table.replace_schema_metadata({**(table.schema.metadata or {}), b"cxrdist.schema_version": b"99"})
    pq.write_table(newer, tmp_path / "newer.parquet")
    with pytest.raises(InputError, match="version 99"):
        read_metrics(tmp_path / "newer.parquet")
    with pytest.raises(InputError, match="not a metrics file"):
        read_metrics(run.predictions)


def test_two_test_sets_of_one_run_are_scored_apart(tmp_path: Path) -> None:
    run = simulate.finetune(tmp_path, train_dataset="nih", test_datasets=("nih", "chexpert"), intervals=False)
    table, _ = collect(run.path)
    assert set(table["test_dataset"].to_pylist()) == {"nih", "chexpert"}
    assert len(table) == 2 * (2 * len(METRICS + COUNTS) + len(METRICS))
