"""Testing a fine-tuned run on another dataset: shared labels, derived labels, policies, thresholds."""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc
import pytest

from cxrdist.errors import InputError
from cxrdist.finetune import decoded_images
from cxrdist.finetune.evaluate import evaluate
from results import schema
from results.run import Run
from results.stats.scoring import metric_rows
from tests.cxrdist import findings
from tests.cxrdist.conftest import TINY
from tests.cxrdist.finetuning import trained

QUICK = {"mode": "linear", "arch": TINY, "image_size": 32}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Two datasets that share pneumonia, and one that shares nothing but the derived any_finding."""
    folder = tmp_path_factory.mktemp("places")
    return {
        "here": findings.make(folder, name="here", seed=1),
        "there": findings.make(folder, name="there", seed=2, labels=("pneumonia", "fracture"), unsure=0.2),
        "apart": findings.make(folder, name="apart", seed=3, labels=("edema",), blank=0.1),
    }


@pytest.fixture(scope="module")
def run(places, tmp_path_factory) -> Run:
    """A run trained on `here`."""
    return trained(tmp_path_factory.mktemp("runs") / "run", places["here"], labels="pneumonia,any_finding", **QUICK)


def rows_of(run: Run, dataset: str) -> dict[tuple[str, str], dict]:
    rows = schema.read_metrics(run.metrics).to_pylist()
    return {(row["label"], row["metric"]): row for row in rows if row["test_dataset"] == dataset}


def test_another_dataset_is_tested_over_the_shared_labels_with_the_run_s_thresholds(run, places):
    own = rows_of(run, "here")
    evaluate(run.path, [str(places["there"])])
    assert rows_of(run, "here") == own, "the run's own numbers stay as they were"
    rows = rows_of(run, "there")
    assert {label for label, _ in rows} == {"pneumonia", "any_finding", "macro"}
    assert rows["pneumonia", "auroc"]["value"] > 0.8, "the picture of pneumonia is the same there"
    for label in ("pneumonia", "any_finding"):
        assert rows[label, "recall"]["threshold"] == own[label, "recall"]["threshold"]
    first = rows["pneumonia", "auroc"]
    assert (first["job"], first["train_dataset"], first["split_scheme"]) == ("evaluate", "here", "list")
    assert first["n_pos"] + first["n_neg"] == findings.SPLITS["test"]


def test_testing_again_replaces_the_rows_and_may_take_another_policy(run, places):
    evaluate(run.path, [str(places["there"])])
    once = len(schema.read_predictions(run.predictions))
    evaluate(run.path, [str(places["there"])], uncertain="ignore")
    table = schema.read_predictions(run.predictions)
    assert len(table) == once
    there = table.filter((pc.field("dataset") == "there") & (pc.field("label") == "pneumonia"))
    row = rows_of(run, "there")["pneumonia", "auroc"]
    assert row["label_policy"] == "ignore/zeros" and there["y_true"].null_count > 0
    assert row["n_pos"] + row["n_neg"] == len(there) - there["y_true"].null_count


def test_numbers_can_be_recomputed_from_the_predictions(run, places):
    evaluate(run.path, [str(places["there"])])
    table = schema.read_predictions(run.predictions)
    again = metric_rows(table, {"train_dataset": "here"})
    values = {(row["test_dataset"], row["label"], row["metric"]): row["value"] for row in again}
    for dataset in ("here", "there"):
        for (label, metric), row in rows_of(run, dataset).items():
            assert values[dataset, label, metric] == row["value"]


def test_any_finding_joins_datasets_without_a_label_in_common(run, places):
    evaluate(run.path, [str(places["apart"])])
    rows = rows_of(run, "apart")
    assert {label for label, _ in rows} == {"any_finding", "macro"}
    truth = schema.read_predictions(run.predictions).filter(pc.field("dataset") == "apart")["y_true"]
    from cxrdist.core.shard_sets import card

    assert sum(truth.to_pylist()) == card(str(places["apart"])).counts["test"]["labels"]["edema"]["positive"]


def test_any_finding_is_positive_uncertain_negative_or_unknown_as_its_parts_are(places):
    from cxrdist.finetune.labelled_data import values_of
    from shards import ShardSet
    from shards.labels import NULL

    there = ShardSet(places["there"])
    parts = there.index.labels_matrix(["pneumonia", "fracture"], there.rows)
    derived = values_of(there, ["any_finding"], there.rows)[:, 0]
    for values, value in zip(parts, derived, strict=True):
        expected = 1 if 1 in values else -1 if -1 in values else 0 if 0 in values else NULL
        assert value == expected
    assert set(np.unique(derived)) == {-1, 0, 1}


def test_label_sets_that_do_not_overlap_are_refused(places, tmp_path):
    run = trained(tmp_path / "run", places["here"], labels="pneumonia", **QUICK)
    before = run.metrics.read_bytes()
    with pytest.raises(InputError, match="none of its labels .edema. is among those the model knows .pneumonia."):
        evaluate(run.path, [str(places["apart"])])
    assert run.metrics.read_bytes() == before


def test_a_trial_can_be_tested_elsewhere_at_once(places, tmp_path):
    run = trained(tmp_path / "run", places["here"], eval_shards=[str(places["there"])], **QUICK)
    assert {label for label, _ in rows_of(run, "there")} == {"pneumonia", "macro"}
    assert set(schema.read_metrics(run.metrics)["job"].to_pylist()) == {"finetune"}


def test_an_unfinished_run_cannot_be_evaluated(places, tmp_path):
    from tests.cxrdist.finetuning import trial

    _, run = trial(tmp_path / "run", places["here"])
    with pytest.raises(InputError, match="not a finished fine-tuning run"):
        evaluate(run.path, [str(places["there"])])
    with pytest.raises(ValueError, match="is not a run folder"):
        evaluate(tmp_path, [str(places["there"])])


@pytest.mark.gpu
@pytest.mark.parametrize(
    "changes", [{"mode": "linear"}, {"mode": "full", "min_steps": 8, "epochs": 1}], ids=["linear", "full"]
)
def test_a_card_trains_and_scores_as_the_cpu_does(places, tmp_path, monkeypatch, changes):
    monkeypatch.setattr(decoded_images, "IN_MEMORY_BYTES", 0)  # so that batches are decoded ahead, into pinned memory
    own = trained(tmp_path / "run", places["here"], **{**QUICK, **changes, "device": "cuda", "precision": "float32"})
    assert own.read_done()["gpu_seconds"] > 0
    tables = [schema.read_predictions(own.predictions)]
    for device in ("cuda", "cpu"):
        evaluate(own.path, [str(places["here"]), str(places["there"])], device=device)
        tables.append(schema.read_predictions(own.predictions))
    scores = [
        {(row["dataset"], row["split"], row["key"], row["label"]): row["y_score"] for row in table.to_pylist()}
        for table in tables
    ]
    assert scores[1].keys() == scores[2].keys() > scores[0].keys()
    for key, score in scores[2].items():
        assert scores[1][key] == pytest.approx(score, abs=1e-4), key
        assert scores[0].get(key, score) == pytest.approx(score, abs=1e-4), key
