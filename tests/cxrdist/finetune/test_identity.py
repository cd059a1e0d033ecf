"""A run reads the data and the weights it was made with, wherever they lie, or says that they are others."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from cxrdist.core import initialisation, pixel_scale
from cxrdist.core.backbones import build_backbone, load_encoder, save_encoder
from cxrdist.errors import InputError
from cxrdist.finetune import identity
from cxrdist.finetune import trial as finetuning
from cxrdist.finetune.config import IGNORED_BY_SIGNATURE, run_settings
from cxrdist.finetune.evaluate import evaluate
from cxrdist.pretrain import loop
from cxrdist.sweep import folder, worker
from cxrdist.sweep import run as sweeps
from cxrdist.sweep.config import SweepConfig
from cxrdist.sweep.folder import SweepFolder
from cxrdist.sweep.grid import expand
from jobs import cli
from results import configs, schema
from results.collect import collect
from results.identity import signature
from results.run import Run
from results.stats.predictions import ScoreMatrix, load_scores
from results.used_datasets import facts_of, of_info
from shards import InputError as ShardsInputError
from shards import ShardSet, read_card
from tests.cxrdist import findings
from tests.cxrdist.conftest import TINY
from tests.cxrdist.finetune.test_finetune import trained, trial
from tests.web import serving

LINEAR = {"mode": "linear", "arch": TINY, "image_size": 32, "n_boot": 0}


@pytest.fixture(scope="session")
def pair(tmp_path_factory) -> tuple[Path, Path]:
    """Two shard sets of one name and other pictures."""
    folder = tmp_path_factory.mktemp("pair")
    return findings.make(folder / "a", name="here", seed=0), findings.make(folder / "b", name="here", seed=1)


@pytest.fixture
def place(pair, tmp_path) -> Path:
    """Where the first of them lies, until `put` lays the other there."""
    return put(pair[0], tmp_path / "place")


def put(shards: Path, place: Path) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    return Path(shutil.copytree(shards, place))


def both_hashes(pair: tuple[Path, Path], text: str) -> bool:
    return all(read_card(shards).sha256 in text for shards in pair)


def encoder(path: Path, seed: int = 0, **facts: Any) -> Path:
    torch.manual_seed(seed)
    facts = {"arch": TINY, "in_chans": 1, "image_size": 32, "stem": "standard", **facts}
    save_encoder(path, build_backbone(TINY, 32, stem="standard"), facts)
    return path


OURS = {"mean": 0.4, "std": 0.2, "signature": "abc", "dataset": "nih", "shards_sha256": "5" * 64}


# what a worker finds at the places of its configuration


def test_a_pretraining_worker_refuses_another_shard_set_at_its_place(pair, place, make_run, capsys):
    run = make_run(shards=str(place))
    put(pair[1], place)
    assert loop.run_worker([str(run.path)]) == 2
    assert both_hashes(pair, capsys.readouterr().err)
    assert not run.is_done and not run.checkpoints.exists()
    with pytest.raises(ValueError, match="holds another run"):
        make_run(shards=str(place))
    make_run(shards=str(pair[0]))
    assert run.shard_hashes().keys() == {str(place), str(pair[0])}, "the set may move, and the run goes on with it"


def test_a_fine_tuning_worker_refuses_another_shard_set_or_encoder_at_its_place(pair, place, tmp_path):
    weights = encoder(tmp_path / "encoder.safetensors", **OURS)
    config, run = trial(tmp_path / "run", place, init=str(weights), eval_shards=[str(pair[1])], **LINEAR)
    first, kept = initialisation.file_sha256(weights), weights.read_bytes()
    encoder(weights, seed=1, **OURS)
    with pytest.raises(
        InputError, match=f"another encoder than .* hash {initialisation.file_sha256(weights)}, not {first}"
    ):
        finetuning.main(str(run.path))
    weights.write_bytes(kept)
    put(pair[1], place)
    with pytest.raises(ShardsInputError, match="another shard set") as caught:
        finetuning.main(str(run.path))
    assert both_hashes(pair, str(caught.value)) and not run.metrics_log.exists()
    with pytest.raises(InputError, match="another shard set"):
        finetuning.run_trial(dataclasses.replace(config, shards=str(findings_of_another(tmp_path))), run)


def findings_of_another(folder: Path) -> Path:
    return findings.make(folder, name="another", seed=9)


def test_a_further_test_set_is_compared_too(pair, place, tmp_path):
    _, run = trial(tmp_path / "run", pair[1], eval_shards=[str(place)], **LINEAR)
    put(pair[1], place)
    with pytest.raises(ShardsInputError, match="another shard set"):
        finetuning.main(str(run.path))


def test_a_worker_process_opens_the_set_that_it_was_sent(pair, place):
    sent = pickle.dumps(ShardSet(place, "train"))
    assert len(pickle.loads(sent)) == 90
    put(pair[1], place)
    with pytest.raises(ShardsInputError, match="another shard set|changed or damaged"):
        pickle.loads(sent)


@pytest.mark.parametrize("stage", ["none", "disk"])
def test_nothing_is_copied_of_another_set(stage, pair, place, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_TMPDIR", str(tmp_path / "disk"))
    (tmp_path / "disk").mkdir()
    with pytest.raises(ShardsInputError, match="another shard set"):
        ShardSet(place, "train", stage=stage, sha256=read_card(pair[1]).sha256)
    assert not [path for path in (tmp_path / "disk").rglob("*") if path.is_file()]


def sweep(place: Path, out: Path, **changes: Any) -> tuple[SweepConfig, list[folder.SweepCell], SweepFolder]:
    base = {"arch": TINY, "image_size": 32, "mode": "linear", "n_boot": 0, "shards": str(place), **changes}
    config = SweepConfig(out=str(out), axes={"seed": [0, 1]}, finetune=base, device="cpu")
    ledger, found = SweepFolder(out), expand(config)
    ledger.claim()
    sweeps._write_plan(config, found, ledger)
    return config, found, ledger


def test_a_cell_of_a_sweep_refuses_another_shard_set_at_its_place(pair, place, tmp_path):
    _, _, ledger = sweep(place, tmp_path / "sweep")
    first, cell = json.loads(ledger.spec.read_text())["cells"]
    assert worker.run(str(ledger.out), first)
    put(pair[1], place)
    assert not worker.run(str(ledger.out), cell), "also in a worker that has the right set open"
    (attempt,) = ledger.attempts(cell["signature"])
    assert attempt["kind"] == "input" and both_hashes(pair, attempt["error"])


def test_a_sweep_that_goes_on_refuses_other_data_and_encoders_at_its_places(pair, place, tmp_path):
    weights = encoder(tmp_path / "encoder.safetensors", **OURS)
    config, _, ledger = sweep(place, tmp_path / "sweep", init=str(weights), arch=None, image_size=None)
    plan = ledger.spec.read_bytes()
    put(pair[1], place)
    with pytest.raises(InputError, match="is not what the sweep .* began with") as caught:
        sweeps.run(config)
    assert both_hashes(pair, str(caught.value))
    put(pair[0], place)
    encoder(weights, seed=1, **OURS)
    with pytest.raises(InputError, match=r"encoder.safetensors is not what the sweep .* began with"):
        sweeps.run(config)
    assert ledger.spec.read_bytes() == plan


def test_looking_into_a_run_refuses_another_shard_set_at_its_place(pair, place, tmp_path, capsys):
    run = trained(tmp_path / "run", place, **LINEAR)
    picture = next((pair[0].parent / "here-source").glob("*.png"))
    put(pair[1], place)
    for words in (
        ["embed", run.path, "--shards", place, "--out", tmp_path / "e.parquet"],
        ["embed", run.model, "--shards", place, "--out", tmp_path / "e.parquet"],
        ["explain", run.path],
        ["explore", run.path, "--shards", place],
        ["predict", run.path, picture, "--shards", place],
        ["evaluate", run.path, "--shards", place],
    ):
        assert cli.main([*map(str, words), "--device", "cpu"]) == 2, words
        assert both_hashes(pair, capsys.readouterr().err), words
    assert not (tmp_path / "e.parquet").exists()
    for more in ([], ["--shards", str(pair[1])]):  # what the model file says of its pixels needs no set
        assert cli.main(["predict", str(run.path), str(picture), *more, "--device", "cpu"]) == 0


# sets by content, whatever their address


def test_a_pretraining_behind_an_address_is_known_by_content(pair, place, make_run, tmp_path):
    near = make_run("near", shards=str(pair[0])).read_info()
    with serving(tmp_path) as web:
        for number, address in enumerate((f"{web.url}/place", f"file://{place}", f"{web.url}/place/")):
            run = make_run(f"far{number}", shards=address)
            assert run.read_info()["signature"] == near["signature"]
            assert set(run.shard_hashes().values()) == set(near["shards"].values())
        assert {Path(path).name for path in web.asked} == {"dataset.json"}, "naming a run fetches the card alone"
        put(pair[1], place)
        with pytest.raises(ValueError, match="holds another run"):
            make_run("far0", shards=f"{web.url}/place")
        with pytest.raises(ShardsInputError, match="another shard set") as caught:
            loop.open_data(
                loop.PretrainConfig(shards=f"{web.url}/place", out=""), [next(iter(run.shard_hashes().values()))]
            )
        assert both_hashes(pair, str(caught.value))
    with pytest.raises(ShardsInputError, match="not a shard set"):
        make_run("nothing", shards=f"file://{tmp_path}/nothing")


def test_one_card_is_read_from_folders_and_addresses(pair):
    card = read_card(pair[0])
    with serving(pair[0].parent) as web:
        assert read_card(f"{web.url}/here") == read_card(f"file://{pair[0]}") == card
        with pytest.raises(ShardsInputError, match="nothing/dataset.json"):
            read_card(f"{web.url}/nothing")


def test_weights_that_a_pretraining_starts_from_count_by_content(make_run, tmp_path):
    weights = encoder(tmp_path / "encoder.safetensors", **OURS)
    run = make_run("run", init=str(weights))
    moved = Path(shutil.copy(weights, tmp_path / "moved.safetensors"))
    assert make_run("again", init=str(moved)).read_info()["signature"] == run.read_info()["signature"]
    encoder(weights, seed=1, **OURS)
    with pytest.raises(ValueError, match="holds another run"):
        make_run("run", init=str(weights))
    with pytest.raises(InputError, match="another encoder"):
        loop.main(run.path)


# what is written about a model, and tested again


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


# the pixels that given weights expect


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_weights_that_do_not_say_what_pixels_they_expect_are_refused(ending, blobs, tmp_path, make_run):
    torch.manual_seed(0)
    backbone = build_backbone(TINY, 32, stem="standard")
    weights = tmp_path / f"published.{ending}"
    if ending == "pth":
        torch.save(backbone.state_dict(), weights)
    else:
        save_encoder(weights, backbone, {})
    given = {**LINEAR, "init": str(weights), "stem": "standard"}
    with pytest.raises(InputError, match=r"does not say what pixels .* --init_mean and --init_std"):
        trial(tmp_path / "run", blobs, **given)
    with pytest.raises(InputError, match="does not say what pixels"):
        make_run("pre", init=str(weights), stem="standard")
    with pytest.raises(InputError, match="init_mean is given alone"):
        trial(tmp_path / "run", blobs, **given, init_mean=0.5)
    with pytest.raises(InputError, match="init_std = 0.0: must be above 0"):
        trial(tmp_path / "run", blobs, **given, init_mean=0.5, init_std=0.0)
    with pytest.raises(InputError, match="has its own pixel scale"):
        trial(tmp_path / "run", blobs, **LINEAR, init_mean=0.5, init_std=1.0)
    run = trained(tmp_path / "run", blobs, **given, init_mean=0.5, init_std=1 / 2048)
    from cxrdist.finetune import classifier
    from cxrdist.finetune.features import normalise

    loaded = classifier.load(run.model)
    ends = normalise(torch.tensor([0, 255], dtype=torch.uint8).reshape(1, 1, 1, 2), loaded, torch.device("cpu"))
    assert ends.flatten().tolist() == [-1024, 1024], "as torchxrayvision's networks see black and white"
    pre = make_run("pre", init=str(weights), stem="standard", init_mean=0.5, init_std=1 / 2048)
    _, _, augment = loop.open_data(loop.from_dict(loop.PretrainConfig, pre.read_config()))
    assert (augment.mean, augment.std) == (0.5, 1 / 2048)


def test_the_signature_says_whose_imagenet_weights_expect_other_pixels_than_those_of_imagenet(
    blobs, tmp_path, make_run
):
    import timm

    usual = [name for name in timm.list_models() if pixel_scale.AS_IMAGENET.fullmatch(name)]
    assert {"resnet18", "resnet50", "densenet121"} <= set(usual)
    for name in usual:
        assert pixel_scale._of_timm(name) == pytest.approx(pixel_scale.IMAGENET_GREY, abs=1e-9), name
    assert pixel_scale._of_timm("tf_efficientnet_lite0") == (0.5, 0.5)
    assert pixel_scale.that_count("imagenet", "resnet18") == {} == pixel_scale.that_count("scratch", "vit_small")
    wanted = {"imagenet_pixels": "timm"}
    assert pixel_scale.that_count("imagenet", "tf_efficientnet_lite0") == wanted
    lite = {"arch": "tf_efficientnet_lite0", "init": "imagenet", "stem": "standard"}
    config, _ = trial(tmp_path / "lite", blobs, **{**LINEAR, **lite})
    values = run_settings(config) | {"shards": read_card(blobs).sha256, "eval_shards": [], "init_pixels": None}
    values.pop("level")
    assert identity.trial_signature(config) == signature(values | wanted, IGNORED_BY_SIGNATURE)
    pre = make_run("pre", **lite)
    assert pre.read_info()["signature"] != make_run("other", **{**lite, "init": "scratch"}).read_info()["signature"]
