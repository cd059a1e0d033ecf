"""Settings and encoders that cannot be used are refused by name and leave no folder behind."""

from __future__ import annotations

import pytest

from cxrdist.core.backbones import save_encoder
from cxrdist.errors import InputError
from cxrdist.finetune import trial as finetuning
from results.run import Run
from tests.cxrdist.conftest import TINY
from tests.cxrdist.finetuning import trial


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
