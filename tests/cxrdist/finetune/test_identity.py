"""A run reads the data and the weights it was made with, wherever they lie, or says that they are others."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
from pathlib import Path

import pytest

from cxrdist.core import initialisation
from cxrdist.errors import InputError
from cxrdist.finetune import trial as finetuning
from cxrdist.pretrain import loop
from cxrdist.sweep import run as sweeps
from cxrdist.sweep import worker
from jobs import cli
from shards import InputError as ShardsInputError
from shards import ShardSet, read_card
from tests.cxrdist import findings
from tests.cxrdist.finetune.replaced import OURS, both_hashes, encoder, put, sweep
from tests.cxrdist.finetuning import LINEAR, trained, trial
from tests.web import serving

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
