"""One trial, from shards to numbers: learning, exactness, label policies, refusals."""

from __future__ import annotations

import ctypes
import dataclasses
import io
import sys
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
import safetensors.torch
import torch

from cxrdist.core import shard_sets
from cxrdist.core.backbones import save_encoder
from cxrdist.errors import InputError
from cxrdist.finetune import classifier, identity, labelled_data, loop
from cxrdist.finetune import trial as finetuning
from cxrdist.finetune.config import FinetuneConfig
from cxrdist.finetune.loop import Stopped
from cxrdist.finetune.parse import from_plain
from jobs import cli
from results import schema
from results.run import Run
from results.stats.metrics import compute
from tests.cxrdist import findings
from tests.cxrdist.conftest import TINY

BASE = {"arch": "small_cnn", "image_size": 28, "epochs": 6, "min_steps": 30, "global_batch": 32, "n_boot": 20}
BASE |= {"threads": 1, "device": "cpu", "augment": {"preset": "none"}, "optim": {"lr": 0.003}}


def trial(out: Path, shards: Path, **changes) -> tuple[FinetuneConfig, Run]:
    values = {**BASE, "shards": str(shards), "out": str(out), **changes}
    config = identity.resolve(from_plain(values, "test"))
    return config, identity.make_run(config)


def trained(out: Path, shards: Path, **changes) -> Run:
    config, run = trial(out, shards, **changes)
    finetuning.run_trial(config, run)
    return run


@pytest.fixture(scope="session")
def unsure(tmp_path_factory) -> Path:
    """Two labels, a fifth of them uncertain or blank."""
    return findings.make(tmp_path_factory.mktemp("unsure"), unsure=0.1, blank=0.1)


@pytest.mark.parametrize(
    "changes",
    [
        {"mode": "full"},
        {"mode": "full", "head": {"kind": "dense", "hidden": 16}, "optim": {"name": "sgd", "lr": 0.02}},
        {"mode": "two_stage", "optim": {"name": "adam", "lr": 0.003}},
        {"mode": "last_n", "last_n": 3, "head": {"kind": "mlp", "hidden": 16}},
        {"mode": "linear", "arch": "resnet10t"},
        {"mode": "linear", "arch": TINY, "head": {"kind": "mlp", "hidden": 16}},
    ],
    ids=["full", "sgd_dense", "two_stage", "last_n_mlp", "linear", "linear_mlp"],
)
def test_every_mode_learns_and_writes_a_complete_run(tmp_path, blobs, changes):
    run = trained(tmp_path / "run", blobs, **changes)
    assert run.is_done and run.read_done()["val_auroc"] > 0.7
    assert run.model.is_file() and run.manifest.is_file() and run.metrics_log.is_file()
    assert not run.checkpoints.exists()
    table = schema.read_predictions(run.predictions)
    test = table.filter(pc.field("split") == "test")
    assert len(test) == 40 and len(set(test["key"].to_pylist())) == 40, "every test sample exactly once"
    rows = schema.read_metrics(run.metrics).to_pylist()
    own = {row["metric"]: row["value"] for row in rows if row["label"] == "pneumonia"}
    threshold = next(row["threshold"] for row in rows if row["metric"] == "recall" and row["label"] == "pneumonia")
    again = compute(np.array(test["y_true"]), np.array(test["y_score"]), threshold)
    assert own == pytest.approx({name: again[name] for name in own})
    assert {(row["mode"], row["init"], row["n_labelled"]) for row in rows} == {(changes["mode"], "scratch", 150)}


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(tmp_path, blobs):
    scores = {}
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        run = trained(tmp_path / name, blobs, seed=seed, augment={"preset": "medical"}, min_steps=6, epochs=1)
        scores[name] = np.array(schema.read_predictions(run.predictions)["y_score"])
    assert np.array_equal(scores["a"], scores["b"])
    assert not np.array_equal(scores["a"], scores["c"])


class StopAfter:
    """A StopRequest that fires when it has been asked often enough."""

    def __init__(self, steps: int):
        self.left = steps

    @property
    def requested(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("mode", ["full", "two_stage"])
def test_a_stopped_trial_ends_with_the_bits_of_an_unbroken_one(tmp_path, blobs, mode):
    changes = {"mode": mode, "head": {"kind": "mlp", "hidden": 8}, "min_steps": 16, "epochs": 1, "head_epochs": 1}
    whole = trained(tmp_path / "whole", blobs, **changes)
    config, run = trial(tmp_path / "broken", blobs, **changes)
    stops = 0
    while not run.is_done:
        try:
            finetuning.run_trial(config, run, StopAfter(3))
        except Stopped:
            stops += 1
    assert stops >= 3
    first, second = (safetensors.torch.load_file(r.model) for r in (whole, run))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert whole.read_log() == run.read_log()


def backbone_moved(run: Run, config: FinetuneConfig) -> bool:
    """Whether the model's backbone differs from the one that the trial began with."""
    began = classifier.build(config, ("pneumonia",), (0.5, 0.25)).backbone.state_dict()
    now = safetensors.torch.load_file(run.model)
    return any(not torch.equal(value, now[f"backbone.{name}"]) for name, value in began.items() if value.ndim > 1)


def test_patience_is_each_stages_own_and_the_stage_of_the_kept_weights_is_recorded(tmp_path, blobs, monkeypatch):
    """A head that stops gaining ends its own stage only; the layers are trained for all that."""
    scores = iter([0.9, 0.8, 0.8, 0.5, 0.6, 0.5, 0.5])  # stage 1 gains once, stage 2 twice; then two without
    monkeypatch.setattr(loop, "macro_auroc", lambda *_: next(scores))
    changes = {"mode": "two_stage", "epochs": 40, "head_epochs": 20, "eval_steps": 2, "patience": 2, "min_steps": 1}
    config, run = trial(tmp_path / "first", blobs, **changes)
    finetuning.run_trial(config, run)
    done = run.read_done()
    assert (done["best_stage"], done["val_auroc"], done["best_step"]) == (1, 0.9, 2)
    assert done["steps"] == 3 * 2 + 4 * 2 and done["ended"] == "early stopping"
    assert not backbone_moved(run, config)
    scores = iter([0.9, 0.8, 0.8, 0.95, 0.9, 0.9])
    config, run = trial(tmp_path / "second", blobs, **changes)
    finetuning.run_trial(config, run)
    assert (run.read_done()["best_stage"], run.read_done()["val_auroc"]) == (2, 0.95)
    assert backbone_moved(run, config)


def test_the_share_of_weights_that_train_is_printed_and_recorded(tmp_path, blobs, caplog):
    caplog.set_level("INFO")
    changes = {"epochs": 1, "min_steps": 1}
    run = trained(tmp_path / "run", blobs, mode="last_n", **changes)
    done = run.read_done()
    assert 0.5 < done["trained_share"] < 0.95 and done["n_trained"] < done["n_parameters"]
    assert f"last_n 1 trains {done['n_trained']:,} of {done['n_parameters']:,} weights" in caplog.text
    probed = trained(tmp_path / "probe", blobs, mode="linear", **changes)
    assert probed.read_done()["n_trained"] == 445


def test_layers_are_counted_in_place_of_stages(tmp_path, blobs, caplog):
    with caplog.at_level("INFO", "cxrdist"):
        run = trained(tmp_path / "run", blobs, mode="last_n", last_layers=2, epochs=1, min_steps=2, n_boot=0)
    model, done = classifier.load(run.path), run.read_done()
    hidden_and_last_convolution = 128 * 9 * 444 + 444 + 64 * 128 * 9 + 128 + 2 * 128 + 445
    assert done["n_trained"] == hidden_and_last_convolution == model.trained(2, True)
    assert f"last_layers 2 trains {done['n_trained']:,} of" in caplog.text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--mode full --last_n 2", "last_n = 2 changes nothing: mode is full, not last_n; leave it out"),
        ("--mode last_n --last_n 2 --last_layers 3", "last_n = 2 changes nothing: last_layers counts in its place"),
        ("--last_layers 3", "last_layers = 3 changes nothing: mode is full"),
        ("--head.dropout 0.1", "head.dropout = 0.1 changes nothing: head.kind is linear"),
        ("--head.kind mlp --head.l2 0.1", "head.l2 = 0.1 changes nothing: head.kind is mlp"),
        (
            "--head.kind mlp --mode linear --head.probe_l2 [1.0]",
            "head.probe_l2 = [1.0] changes nothing: head.kind is mlp",
        ),
        ("--weight_factor 0.5", "weight_factor = 0.5 changes nothing: class_weights is none"),
        ("--kmeans.centres 99", "kmeans.centres = 99 changes nothing: init is scratch"),
        ("--arch resnet10t --norm none", "norm none is for arch small_cnn alone"),
    ],
)
def test_a_setting_without_effect_is_refused(tmp_path, blobs, capsys, words, message):
    given = ["finetune", "--shards", str(blobs), "--out", str(tmp_path / "run"), "--device", "cpu", *words.split()]
    assert cli.main(given) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_every_optimiser_has_a_weight_decay_of_its_own_and_records_it(tmp_path, blobs):
    """AdamW's 1e-2 inside Adam or SGD is another penalty by far: they add it to the gradient."""
    for name, decay in (("adamw", 1e-2), ("sgd", 1e-4), ("adam", 0.0)):
        config, run = trial(tmp_path / name, blobs, optim={"name": name})
        assert run.read_config()["optim"]["weight_decay"] == config.optim.weight_decay == decay
    config, _ = trial(tmp_path / "own", blobs, optim={"name": "adam", "weight_decay": 1e-3})
    assert config.optim.weight_decay == 1e-3


def test_a_finished_run_is_returned_and_not_trained_again(tmp_path, blobs):
    run = trained(tmp_path / "run", blobs, mode="linear", arch=TINY)
    before = run.done.read_text()
    trained(tmp_path / "run", blobs, mode="linear", arch=TINY)
    assert run.done.read_text() == before


def test_uncertain_and_blank_labels_follow_the_policy(tmp_path, unsure):
    counts = {}
    for name, policy in {
        "ones": {"uncertain": "ones", "blanks": "zeros"},
        "ignore": {"uncertain": "ignore", "blanks": "ignore"},
        "mixed": {"uncertain": {"pneumonia": "zeros", "edema": "ignore"}, "blanks": "zeros"},
    }.items():
        run = trained(tmp_path / name, unsure, mode="linear", **policy)
        table = schema.read_predictions(run.predictions).filter(pc.field("split") == "test")
        counts[name] = {
            label: table.filter(pc.field("label") == label)["y_true"].null_count for label in ("pneumonia", "edema")
        }
        policies = set(schema.read_metrics(run.metrics)["label_policy"].to_pylist())
        assert policies == {
            {"ones": "ones/zeros", "ignore": "ignore/ignore"}.get(name, "edema:ignore,pneumonia:zeros/zeros")
        }
    stored = shard_sets.card(str(unsure)).counts["test"]["labels"]
    assert counts["ones"] == {"pneumonia": 0, "edema": 0}
    assert counts["ignore"] == {label: stored[label]["uncertain"] + stored[label]["null"] for label in stored}
    assert counts["mixed"] == {"pneumonia": 0, "edema": stored["edema"]["uncertain"]}


def test_fractions_are_nested_and_val_is_cut_only_when_asked(tmp_path, blobs):
    keys = {}
    for fraction in (0.1, 0.5):
        config, _ = trial(tmp_path / str(fraction), blobs, label_fraction=fraction)
        data = labelled_data.load(config)
        keys[fraction] = set(data.manifest.keys)
        assert data.val is not None and len(data.val) == 40
    assert keys[0.1] < keys[0.5] and len(keys[0.1]) == 15
    few, _ = trial(tmp_path / "few", blobs, label_fraction=0.1, val_fraction_too=True)
    val = labelled_data.load(few).val
    assert val is not None and len(val) == 4


def test_a_label_without_positives_is_null_and_counted(tmp_path):
    shards = findings.make(tmp_path, positive={"edema": 0.02}, seed=5)
    train = shard_sets.card(str(shards)).counts["train"]["labels"]["edema"]["positive"]
    seed = next(
        seed
        for seed in range(50)
        if not labelled_data.load(trial(tmp_path / f"look{seed}", shards, label_fraction=0.2, seed=seed)[0]).trainable[
            0
        ]
    )
    assert train > 0
    run = trained(tmp_path / "run", shards, label_fraction=0.2, seed=seed, mode="linear")
    assert run.read_done()["unlearnt"] == ["edema"]
    rows = schema.read_metrics(run.metrics).to_pylist()
    edema = [row for row in rows if row["label"] == "edema"]
    assert edema and all(row["value"] is None for row in edema)
    macro = next(row for row in rows if row["label"] == "macro" and row["metric"] == "auroc")
    assert (macro["n_labels"], macro["n_labels_undefined"]) == (1, 1) and macro["value"] is not None
    assert set(schema.read_predictions(run.predictions)["label"].to_pylist()) == {"pneumonia"}


def test_a_fraction_that_teaches_nothing_is_refused(tmp_path):
    shards = findings.make(tmp_path, positive={"edema": 0.0, "pneumonia": 0.0})
    config, run = trial(tmp_path / "run", shards)
    with pytest.raises(InputError, match="no label with positives and negatives"):
        finetuning.run_trial(config, run)
    assert not run.is_done


@pytest.fixture(scope="session")
def encoder(tmp_path_factory) -> Path:
    """An encoder file as pretraining writes it."""
    torch.manual_seed(1)
    from cxrdist.core.backbones import build_backbone

    path = tmp_path_factory.mktemp("encoder") / "encoder.safetensors"
    facts = {"arch": "resnet10t", "in_chans": 1, "image_size": 32, "mean": 0.4, "std": 0.2, "stem": "small"}
    save_encoder(path, build_backbone("resnet10t", 32, stem="small"), {**facts, "signature": "abc", "dataset": "nih"})
    return path


def test_an_encoder_brings_its_arch_size_and_pixels_into_the_results(tmp_path, blobs, encoder):
    run = trained(tmp_path / "run", blobs, init=str(encoder), mode="linear", arch=None, image_size=None)
    row = schema.read_metrics(run.metrics).to_pylist()[0]
    assert (row["init"], row["pretrain_dataset"], row["init_signature"]) == ("simclr:nih", "nih", "abc")
    assert row["arch"] == "resnet10t" and run.read_config()["image_size"] == 32
    facts = classifier.load(run.model).facts
    assert (facts["mean"], facts["std"]) == (0.4, 0.2)


def test_an_encoder_is_probed_at_another_resolution_which_the_results_say(tmp_path, blobs, encoder):
    run = trained(tmp_path / "run", blobs, init=str(encoder), mode="linear", arch=None, image_size=48)
    assert run.read_config()["image_size"] == 48 and run.read_info()["init"]["image_size"] == 32
    assert '"image_size":48' in schema.read_metrics(run.metrics).to_pylist()[0]["config"]
    network = classifier.load(run.model)
    assert network.facts["image_size"] == 48 and network.facts["stem_size"] == 32, "the strides it was trained with"


def test_the_saved_model_gives_the_scores_that_were_written(tmp_path, blobs):
    run = trained(tmp_path / "run", blobs, arch=TINY, image_size=32, epochs=1, min_steps=4)
    config = from_plain(run.read_config(), "config")
    from cxrdist.finetune.features import Network
    from cxrdist.finetune.tester import probabilities

    model = classifier.load(run.model)
    network = Network(dataclasses.replace(config, cache=None), model, "float32")
    scores = probabilities(network.logits(labelled_data.load(config).test))[:, 0]
    table = schema.read_predictions(run.predictions).filter(pc.field("split") == "test")
    assert np.array_equal(scores, np.array(table["y_score"]))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"init": "encoder", "arch": "resnet18"}, "holds a resnet10t, this trial asks for arch resnet18"),
        ({"arch": "vit_tiny_patch16_224", "image_size": 40}, "cuts images into patches of 16 pixels"),
        ({"init": "nowhere"}, "init nowhere: no such file or run"),
        ({"label_fraction": 0.0}, "label_fraction = 0.0: must be in"),
        ({"threshold": "best"}, "threshold = 'best': must be balanced_accuracy"),
        ({"epochz": 3}, "unknown key epochz; did you mean epochs"),
        ({"optim": {"rate": 3}}, "unknown key optim.rate"),
        ({"mode": "half"}, "mode"),
        ({"epochs": "many"}, "epochs"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused_by_name(tmp_path, blobs, encoder, changes, words):
    if changes.get("init") == "encoder":
        changes = {**changes, "init": str(encoder)}
    with pytest.raises(InputError, match=words):
        trial(tmp_path / "run", blobs, **changes)
    assert not (tmp_path / "run").exists()


def test_a_damaged_encoder_is_refused(tmp_path, blobs, encoder):
    for name, data in {
        "cut": encoder.read_bytes()[:40],
        "torn": encoder.read_bytes()[:-100],
        "text": b"no weights at all",
    }.items():
        bad = tmp_path / f"{name}.safetensors"
        bad.write_bytes(data)
        with pytest.raises(InputError, match=f"{name}.safetensors"):
            config, run = trial(tmp_path / name, blobs, init=str(bad), arch="resnet10t", image_size=32)
            finetuning.run_trial(config, run)


def test_a_label_that_the_shard_set_lacks_is_refused(tmp_path, blobs):
    with pytest.raises(InputError, match="hernia"):
        trial(tmp_path / "run", blobs, labels="hernia")
    config, run = trial(tmp_path / "run", blobs)
    with pytest.raises(InputError, match="hernia"):
        finetuning.run_trial(dataclasses.replace(config, labels=["hernia"]), run)


def test_input_that_cannot_be_used_leaves_no_folder_behind(tmp_path, blobs, capsys):
    """The encoder is cut off; with a whole one in its place the same command must work."""
    from cxrdist.core.backbones import build_backbone
    from jobs import cli

    whole, encoder, out = tmp_path / "whole.safetensors", tmp_path / "encoder.safetensors", tmp_path / "run"
    facts = {"arch": TINY, "in_chans": 1, "image_size": 28, "stem": "standard", "mean": 0.5, "std": 0.25}
    save_encoder(whole, build_backbone(TINY, 28), facts)
    encoder.write_bytes(whole.read_bytes()[:100_000])
    words = ["finetune", "--shards", str(blobs), "--init", str(encoder), "--mode", "linear", "--n_boot", "0"]
    words += ["--out", str(out), "--threads", "1", "--device", "cpu"]
    assert cli.main(words) == 2 and not out.exists()
    assert "encoder.safetensors is not a safetensors file, or is damaged" in capsys.readouterr().err
    encoder.write_bytes(whole.read_bytes())
    assert cli.main(words) == 0 and Run(out).is_done


def test_a_test_set_without_a_shared_label_is_refused_before_training(tmp_path, blobs):
    other = findings.make(tmp_path, name="other", labels=("edema",))
    with pytest.raises(InputError, match="none of its labels .edema. is among the trial's"):
        trial(tmp_path / "run", blobs, labels="pneumonia", eval_shards=[str(other)])
    config, run = trial(tmp_path / "run", blobs, labels="pneumonia")
    with pytest.raises(InputError, match="none of its labels .edema. is among those the model knows"):
        finetuning.run_trial(dataclasses.replace(config, eval_shards=[str(other)]), run)
    assert not run.metrics_log.exists() and not run.checkpoints.exists()


def sharpness(images: torch.Tensor) -> float:
    """Mean squared Laplacian of images (B, 1, S, S)."""
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
    return float(torch.nn.functional.conv2d(images, kernel).square().mean())


def test_training_views_are_cut_from_images_with_room_for_the_crops(tmp_path, blobs):
    """Decoded at model size, crops of 40 to 100 % of the area would be enlarged: blurrier than val and test are."""
    common = {"arch": "resnet10t", "image_size": 20, "augment": {"preset": "none", "crop": [0.4, 0.6]}}
    views = {}
    for name, load_size in (("room", None), ("model size", 20)):
        config, run = trial(tmp_path / name, blobs, load_size=load_size, **common)
        views[name] = finetuning.Trial(config, run).training_views()(0, np.arange(100))
        assert views[name].shape == (100, 1, 20, 20)
    assert sharpness(views["room"]) > 1.5 * sharpness(views["model size"])
    config, run = trial(tmp_path / "no crops", blobs, **common | {"augment": {"preset": "none"}})
    whole = finetuning.Trial(config, run)
    tested = whole.network.pixels(whole.data.train).take(whole.data.train.positions[:9]).float() / 255
    tested = (tested - whole.data.card.mean) / whole.data.card.std
    assert torch.allclose(whole.training_views()(0, np.arange(9)), tested, atol=1e-5)


class Mallinfo(ctypes.Structure):
    """The answer of mallinfo2(3)."""

    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks".split()]
    _fields_ += [(name, ctypes.c_size_t) for name in ("uordblks", "fordblks", "keepcost")]


def test_freed_memory_is_kept(tmp_path, blobs):
    """Otherwise glibc maps every large tensor anew, and the kernel clears its pages in every step."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        pytest.skip("glibc: another C library")
    libc.mallinfo2.restype = Mallinfo
    _, run = trial(tmp_path / "run", blobs, epochs=1, min_steps=1)
    finetuning.main(str(run.path))
    before = libc.mallinfo2().hblkhd
    kept = torch.empty(64 << 20, dtype=torch.uint8)
    assert libc.mallinfo2().hblkhd == before and len(kept)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_a_bar_and_a_log_a_line_a_validation(tmp_path, blobs, monkeypatch, caplog):
    terminal = _Terminal()
    with monkeypatch.context() as patched, caplog.at_level("INFO", "cxrdist.finetune"):
        patched.setattr(sys, "stderr", terminal)
        trained(tmp_path / "bar", blobs, epochs=2, min_steps=6, n_boot=0)
    shown = terminal.getvalue()
    assert "fine-tuning" in shown and "10/10" in shown and "val_auroc=" in shown
    assert not [record for record in caplog.records if "val AUROC" in record.message]
    with caplog.at_level("INFO", "cxrdist.finetune"):
        run = trained(tmp_path / "log", blobs, epochs=2, min_steps=6, n_boot=0)
    lines = [record.message for record in caplog.records if "val AUROC" in record.message]
    looked = [row for row in run.read_log() if "val_auroc" in row]
    assert len(lines) == len(looked) and lines[-1].startswith("step 10/10  epoch ")
