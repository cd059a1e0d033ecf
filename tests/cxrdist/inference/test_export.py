"""Exports compute what the network computes, hold no Python objects, and say what they are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch

from cxrdist.inference import network as networks
from jobs import cli
from tests.cxrdist.conftest import TINY
from tests.cxrdist.finetuning import trained


@pytest.fixture(scope="module")
def run(blobs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = {"arch": TINY, "stem": "standard", "image_size": 32, "epochs": 1, "min_steps": 2, "n_boot": 0}
    return trained(tmp_path_factory.mktemp("export") / "run", blobs, **settings).path


def test_timm_loads_the_folder_and_gives_the_same_logits(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", str(run), "--to", "hf"]) == 0
    folder = run / "export-hf"
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    images = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(3))
    network = networks.load(run, "cpu", classify=True)
    assert network.classifier is not None
    with torch.inference_mode():
        np.testing.assert_allclose(model(images), network.classifier(images), atol=1e-5)
    config = json.loads((folder / "config.json").read_text())
    assert config["label_names"] == ["pneumonia"] and config["pretrained_cfg"]["mean"] == [network.mean]
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: timm")
    assert re.search(r"\| pneumoniamnist \| pneumonia \| auroc \| [01]\.\d{3} \|", card)
    assert "Research use only" in card and "Licence: CC BY 4.0" in card
    assert cli.main(["export", str(run), "--to", "hf"]) == 0, "an export is replaced by an export"
    (folder / "notes.txt").write_text("mine")
    capsys.readouterr()
    assert cli.main(["export", str(run), "--to", "hf"]) == 2
    assert "holds something else" in capsys.readouterr().err


def test_a_plain_state_dict_opens_without_unpickling_and_fills_the_network(run: Path, tmp_path: Path) -> None:
    assert cli.main(["export", str(run), "--to", "pth", "--out", str(tmp_path / "p")]) == 0
    state = torch.load(tmp_path / "p" / "best_pneumonia_classifier.pth", weights_only=True)
    network = networks.load(run, "cpu", classify=True).classifier
    assert network is not None
    network.load_state_dict(state)
    facts = json.loads((tmp_path / "p" / "best_pneumonia_classifier.json").read_text())
    assert facts["labels"] == ["pneumonia"] and "32 x 32 pixels" in facts["preprocessing"]
    assert cli.main(["export", str(run), "--to", "pth", "--out", str(tmp_path / "p")]) == 0, "an export is replaced"
    plain = timm.create_model(TINY, in_chans=1, num_classes=0)
    plain.load_state_dict({k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")})


@pytest.mark.parametrize(
    ("to", "name"), [("pth", "best_ssl_model.pth"), ("hf", "README.md"), ("hf", "model.safetensors"), ("onnx", "")]
)
def test_files_of_others_that_are_called_the_same_stay(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], to: str, name: str
) -> None:
    mine = tmp_path / (name or "model.safetensors")
    mine.write_text("mine")
    out = tmp_path if name else mine
    assert cli.main(["export", str(run), "--to", to, "--out", str(out)]) == 2
    assert "--out" in capsys.readouterr().err and mine.read_text() == "mine"


def test_an_encoder_is_exported_under_its_own_name(run: Path, tmp_path: Path) -> None:
    from cxrdist.core.backbones import save_encoder

    network = networks.load(run, "cpu")
    facts = {"arch": TINY, "image_size": 32, "stem": "standard", "mean": 0.5, "std": 0.2}
    save_encoder(tmp_path / "encoder.safetensors", network.module, facts)
    assert cli.main(["export", str(tmp_path), "--to", "pth", "--out", str(tmp_path / "p")]) == 0
    timm.create_model(TINY, in_chans=1, num_classes=0).load_state_dict(
        torch.load(tmp_path / "p" / "best_ssl_model.pth", weights_only=True)
    )
    assert cli.main(["export", str(tmp_path), "--to", "hf"]) == 0
    folder = tmp_path / "export-hf"
    assert timm.create_model(f"local-dir:{folder}", pretrained=True).num_classes == 0
    modes = {path.stat().st_mode for path in folder.iterdir()}
    assert modes == {(folder / "README.md").stat().st_mode}, "weights are readable by whom the umask lets read"


def test_a_vision_transformer_is_exported_at_the_size_it_was_trained_at(tmp_path: Path) -> None:
    from cxrdist.core.backbones import build_backbone, save_encoder

    arch = "vit_tiny_patch16_224"
    facts = {"arch": arch, "image_size": 32, "stem": "standard", "mean": 0.5, "std": 0.2}
    save_encoder(tmp_path / "encoder.safetensors", build_backbone(arch, 32), facts)
    assert cli.main(["export", str(tmp_path), "--to", "hf"]) == 0
    again = timm.create_model(f"local-dir:{tmp_path / 'export-hf'}", pretrained=True)
    assert again.pos_embed.shape == (1, 5, 192)


def test_what_only_this_package_registers_is_refused_for_hf(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from cxrdist.core.backbones import build_backbone, save_encoder

    facts = {"arch": "eva_x_tiny_patch16", "image_size": 32, "stem": "standard", "mean": 0.5, "std": 0.2}
    save_encoder(tmp_path / "encoder.safetensors", build_backbone("eva_x_tiny_patch16", 32), facts)
    assert cli.main(["export", str(tmp_path), "--to", "hf"]) == 2
    assert "timm has no eva_x_tiny_patch16; take --to onnx or pth" in capsys.readouterr().err


def test_an_export_that_computes_something_else_leaves_no_weights(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from cxrdist.inference import export

    monkeypatch.setattr(export, "TOLERANCE", -1.0)  # as if no difference were small enough
    assert cli.main(["export", str(run), "--to", "hf", "--out", str(tmp_path / "hf")]) == 1
    assert "would give other numbers than the network" in capsys.readouterr().err
    assert not (tmp_path / "hf" / "model.safetensors").exists()


def test_onnx_gives_the_probabilities_of_grey_values(run: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnx: the extra `onnx` is not installed")
    pytest.importorskip("onnxscript", reason="onnx: the extra `onnx` is not installed")
    assert cli.main(["export", str(run), "--to", "onnx", "--out", str(tmp_path / "m.onnx")]) == 0
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    network = networks.load(run, "cpu", classify=True)
    images = torch.randint(0, 256, (5, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    (found,) = session.run(None, {"image": images.float().numpy()})
    np.testing.assert_allclose(found, network.scores(images), atol=1e-5)
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["labels"]) == ["pneumonia"] and "/ 255" in facts["preprocessing"]


def test_onnx_without_its_extra_says_what_to_install(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from cxrdist.inference import export

    monkeypatch.setattr(export, "util", SimpleNamespace(find_spec=lambda name: None))
    assert cli.main(["export", str(run), "--to", "onnx"]) == 2
    assert "pip install 'cxrdist[onnx]'; or take pth or hf" in capsys.readouterr().err


def test_a_network_that_timm_does_not_know_is_refused_for_hf(
    blobs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = trained(tmp_path / "small", blobs, epochs=1, min_steps=2, n_boot=0).path
    assert cli.main(["export", str(small), "--to", "hf"]) == 2
    assert "timm has no small_cnn; take --to onnx or pth" in capsys.readouterr().err
    assert not (small / "export-hf").exists()
