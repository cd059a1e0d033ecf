"""What is written about a model, by its training and by every test after it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from cxrdist.core import initialisation
from cxrdist.core.backbones import load_encoder
from cxrdist.finetune import trial as finetuning
from cxrdist.finetune.evaluate import evaluate
from cxrdist.pretrain import loop
from cxrdist.sweep import worker
from results import configs, schema
from results.collect import collect
from results.run import Run
from results.stats.predictions import ScoreMatrix, load_scores
from results.used_datasets import facts_of, of_info
from shards import read_card
from tests.cxrdist import findings
from tests.cxrdist.finetune.replaced import OURS, encoder, sweep
from tests.cxrdist.finetuning import LINEAR, trained, trial


def numbers(run: Run, *left_out: str) -> list[dict[str, Any]]:
    rows = schema.read_metrics(run.metrics).drop_columns(["created_at", *left_out]).to_pylist()
    return sorted(rows, key=lambda row: (row["test_dataset"], row["label"], row["metric"]))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> tuple[Path, Path, Path, Path]:
    """A fine-tuning with a label it could not learn, tested elsewhere too; its sets and its encoder."""
    folder = tmp_path_factory.mktemp("model")
    here = findings.make(folder, name="here", positive={"edema": 0.02}, seed=5)
    there = findings.make(folder, name="there", seed=6)
    weights = encoder(folder / "encoder.safetensors", **OURS)
    for seed in range(10):
        config, run = trial(folder / f"run{seed}", here, label_fraction=0.2, seed=seed, init=str(weights),
                            eval_shards=[str(there)], val_fraction_too=True, **{**LINEAR, "n_boot": 20})  # fmt: skip
        from cxrdist.finetune import labelled_data

        if labelled_data.load(config).unlearnt == ["edema"]:
            finetuning.run_trial(config, run)
            return run.path, here, there, weights
    raise AssertionError("every seed learns edema")


@pytest.fixture
def again(model, tmp_path) -> Run:
    return Run(shutil.copytree(model[0], tmp_path / model[0].name))


def test_testing_again_gives_the_same_rows(model, again):
    _, here, there, _ = model
    before, predictions = numbers(again), schema.read_predictions(again.predictions)
    assert [row["label"] for row in before if row["value"] is None and row["metric"] == "auroc"].count("edema") == 2
    macro = next(row for row in before if (row["label"], row["metric"]) == ("macro", "auroc"))
    assert (macro["n_labels"], macro["n_labels_undefined"]) == (1, 1)
    for places in ([here, there], [there]):
        evaluate(again.path, list(map(str, places)), device="cpu")
        assert numbers(again) == before
    order = [("dataset", "ascending"), ("split", "ascending"), ("label", "ascending"), ("key", "ascending")]
    assert schema.read_predictions(again.predictions).sort_by(order).equals(predictions.sort_by(order))
    rows = evaluate(again.path, [str(here)], uncertain="ignore", device="cpu")
    assert {row["label"] for row in rows} == {"pneumonia", "edema", "macro"} and {r["job"] for r in rows} == {
        "evaluate"
    }


def test_where_a_model_comes_from_is_copied_from_its_run(model, again):
    _, here, there, weights = model
    before, kept = numbers(again), weights.read_bytes()
    first = before[0]
    assert (first["init"], first["init_signature"]) == ("simclr:nih", "abc")
    assert (first["init_hash"], first["pretrain_dataset_hash"]) == (initialisation.file_sha256(weights), "5" * 64)
    assert (first["n_val"], first["val_fraction"], first["threshold_rule"]) == (8, 0.2, "balanced_accuracy")
    assert first["train_dataset_hash"] == read_card(here).sha256
    config = configs.parsed(first["config"])
    assert (config["shards"], config["init"]) == (first["train_dataset_hash"], first["init_hash"])
    assert {"optim.lr", "threshold", "image_size"} <= set(config) and not {"seed", "out", "eval_shards"} & set(config)
    assert {row["config"] for row in before} == {first["config"]}
    assert configs.parsed(str(configs.of_run(again))) == config, "a run's folder says the same to older results"
    assert {row["test_dataset"]: row["test_dataset_hash"] for row in before} == {
        "here": read_card(here).sha256,
        "there": read_card(there).sha256,
    }
    try:
        encoder(weights, seed=1, **{**OURS, "dataset": "chexpert", "signature": "def"})
        evaluate(again.path, [str(there)], device="cpu")
        assert numbers(again) == before, "another encoder lies there now"
        weights.unlink()
        evaluate(again.path, [str(there)], device="cpu")
        assert numbers(again) == before, "the encoder is gone"
    finally:
        weights.write_bytes(kept)


def test_a_run_notes_whose_data_it_and_its_encoder_read(pair, tmp_path, make_run):
    pretraining = make_run("pretraining", shards=str(pair[0]))
    encoder(pretraining.encoder, **OURS)
    _, run = trial(tmp_path / "run", pair[1], init=str(pretraining.path), **LINEAR)
    assert of_info(run.read_info()) == {read_card(shards).sha256: facts_of(read_card(shards)) for shards in pair}
    _, found, ledger = sweep(pair[1], tmp_path / "sweep", init=str(pretraining.encoder))
    first, _ = json.loads(ledger.spec.read_text())["cells"]
    assert worker.run(str(ledger.out), first)
    assert of_info(found[0].run.read_info()) == of_info(run.read_info())


def test_two_sets_of_one_name_are_two_test_sets_of_a_run(pair, tmp_path):
    run = trained(tmp_path / "run", pair[0], **LINEAR)
    own = numbers(run)
    first, second = (read_card(shards) for shards in pair)
    assert set(of_info(run.read_info())) == {first.sha256}
    rows = evaluate(run.path, [str(pair[1])], device="cpu")
    assert of_info(run.read_info()) == {card.sha256: facts_of(card) for card in (first, second)}
    other = f"here@{read_card(pair[1]).sha256[:8]}"
    assert {row["test_dataset"] for row in rows} == {other}
    assert [row for row in numbers(run) if row["test_dataset"] == "here"] == own, "the first set's rows stay"
    renamed = Path(shutil.copytree(pair[1], tmp_path / "other-folder"))
    evaluate(run.path, [str(renamed)], device="cpu")
    assert len(numbers(run)) == 2 * len(own), "one set at two places is one set"
    assert {row["test_dataset"] for row in numbers(run)} == {"here", other}


def test_a_run_whose_folder_was_renamed_can_be_tested_again(model, again):
    _, _, there, _ = model
    run = Run(again.path.rename(again.path.with_name("renamed")))
    before = numbers(run, "run")
    evaluate(run.path, [str(there)], device="cpu")
    assert numbers(run, "run") == before
    for table in (schema.read_metrics(run.metrics), schema.read_predictions(run.predictions)):
        assert set(table["run"].to_pylist()) == {"renamed"}
    table, _ = collect(run.path)
    assert isinstance(load_scores(table["source"][0].as_py(), "there", read_card(there).sha256), ScoreMatrix)


def test_results_without_hashes_are_matched_by_their_images(pair, tmp_path):
    run = trained(tmp_path / "run", pair[0], eval_shards=[str(pair[1])], **LINEAR)
    before = numbers(run)
    rows = [row | dict.fromkeys(schema.ADDED[2]) for row in schema.read_metrics(run.metrics).to_pylist()]
    schema.write_metrics(run.metrics, rows)
    evaluate(run.path, [str(pair[0])], device="cpu")
    assert {row["test_dataset"] for row in numbers(run)} == {row["test_dataset"] for row in before}
    assert [(r["label"], r["metric"], r["value"]) for r in numbers(run)] == [
        (r["label"], r["metric"], r["value"]) for r in before
    ]


def test_a_pretraining_says_what_it_was_trained_on_and_how_large_it_is(make_run, blobs):
    run = make_run(steps=1)
    loop.run_worker([str(run.path)])
    (row,) = collect(run.path)[0].to_pylist()
    assert (row["pretrain_dataset"], row["pretrain_dataset_hash"]) == ("pneumoniamnist", read_card(blobs).sha256)
    backbone, facts = load_encoder(run.path)
    assert isinstance(backbone.num_features, int)
    width, hidden, dim = backbone.num_features, 32, 16
    head = width * hidden + 2 * hidden + hidden * dim
    assert row["n_parameters"] - sum(p.numel() for p in backbone.parameters()) in range(head, head + 2 * dim + 1)
    assert row["arch"] == facts["arch"]
