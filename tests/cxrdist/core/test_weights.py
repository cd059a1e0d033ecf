"""Weights are believed only whole: a flipped bit, zeros, NaN or foreign metadata are one line, not other scores."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from cxrdist.core import initialisation, weights
from cxrdist.core.backbones import build_backbone, load_encoder, load_init, save_encoder
from cxrdist.errors import InputError
from cxrdist.finetune import classifier
from cxrdist.finetune.config import FinetuneConfig
from cxrdist.inference import network as networks
from results.run import Run

ARCH, SIZE = "test_resnet", 32
FACTS = {"arch": ARCH, "in_chans": 1, "image_size": SIZE, "stem": "standard", "mean": 0.5, "std": 0.25}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """An encoder file and, in the folder beside it, a fine-tuned model."""
    root = tmp_path_factory.mktemp("weights")
    save_encoder(root / "encoder.safetensors", build_backbone(ARCH, SIZE, stem="standard"), FACTS)
    config = FinetuneConfig(shards="-", out="-", arch=ARCH, image_size=SIZE, stem="standard")
    model = classifier.build(config, ("edema", "pneumonia"), (0.5, 0.25))
    classifier.save(root / "model.safetensors", model, signature="s")
    return root


def _rewritten(source: Path, target: Path, change=lambda tensors: tensors, **facts: str | None) -> Path:
    """A copy with other tensors and metadata, as a program that knows nothing of hashes would write it."""
    with safetensors.safe_open(source, framework="pt") as opened:
        metadata = {**opened.metadata(), **facts}
    tensors = change(safetensors.torch.load_file(source))
    safetensors.torch.save_file(tensors, target, {k: v for k, v in metadata.items() if v is not None})
    return target


def _zeros(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: torch.zeros_like(value) for name, value in tensors.items()}


def _with_nan(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    name = next(name for name, value in tensors.items() if value.is_floating_point())
    return {**tensors, name: torch.full_like(tensors[name], torch.nan)}


@pytest.mark.parametrize(
    ("name", "load"), [("encoder.safetensors", load_encoder), ("model.safetensors", classifier.load)]
)
def test_a_flipped_bit_of_a_file_of_weights_is_refused_or_changes_no_number(made, tmp_path, name, load):
    whole = (made / name).read_bytes()
    expected, _ = weights.read(made / name)
    for seed in range(25):
        changed = bytearray(whole)
        where = random.Random(seed).randrange(8 * len(whole))
        changed[where // 8] ^= 1 << where % 8
        (tmp_path / name).write_bytes(changed)
        try:
            load(tmp_path / name)
        except InputError as error:
            assert name in str(error)
            continue
        found, _ = weights.read(tmp_path / name)
        assert all(torch.equal(found[key], expected[key]) for key in expected), (seed, where)


@pytest.mark.parametrize(
    ("change", "says"), [(_zeros, "was changed or damaged"), (_with_nan, "was changed or damaged")]
)
def test_weights_that_are_not_those_of_the_metadata_are_refused(made, tmp_path, change, says):
    file = _rewritten(made / "model.safetensors", tmp_path / "model.safetensors", change)
    with pytest.raises(InputError, match=f"{says}: the sha256 of its weights is .* its metadata says"):
        networks.load(file, "cpu", classify=True)


def test_weights_that_are_not_those_of_done_json_are_refused(made, tmp_path):
    run = Run(tmp_path)
    digest = initialisation.safetensors_metadata(made / "encoder.safetensors")[weights.KEY]
    _rewritten(made / "encoder.safetensors", run.encoder, _zeros, **{weights.KEY: None})
    load_encoder(run.encoder)  # nobody says what they should be
    run.finish(weights_sha256=digest)
    with pytest.raises(InputError, match=r"done.json beside it says"):
        load_encoder(run.path)
    with pytest.raises(InputError, match=r"done.json beside it says"):
        load_init(str(run.path), ARCH, SIZE)


def test_nan_weights_without_a_hash_are_refused_in_either_format(made, tmp_path):
    file = _rewritten(made / "encoder.safetensors", tmp_path / "x.safetensors", _with_nan, **{weights.KEY: None})
    with pytest.raises(InputError, match="x.safetensors holds NaN or infinity in "):
        load_init(str(file), ARCH, SIZE)
    torch.save(_with_nan(build_backbone(ARCH, SIZE, stem="standard").state_dict()), tmp_path / "x.pth")
    with pytest.raises(InputError, match="x.pth holds NaN or infinity in "):
        load_init(str(tmp_path / "x.pth"), ARCH, SIZE)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image_size", "large"), ("image_size", "-3"), ("image_size", "²"), ("in_chans", "7"), ("stem", "round"),
        ("mean", "nan"), ("std", "0"), ("std", "many"), ("arch", None), ("arch", "resnet19"),
    ],
)  # fmt: skip
def test_metadata_of_an_encoder_that_cannot_be_are_refused_by_name(made, tmp_path, key, value):
    file = _rewritten(made / "encoder.safetensors", tmp_path / "foreign.safetensors", **{key: value})
    with pytest.raises(InputError, match=key):
        networks.load(file, "cpu")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("labels", "5"), ("labels", "[]"), ("labels", "[1]"), ("labels", None), ("head", "5"), ("head", '{"kind": 3}'),
        ("head", '{"width": 3}'), ("stem_size", "null"), ("mean", '"a"'), ("image_size", "[32]"), ("head", "[" * 5000),
        ("arch", "5"), ("labels", '["edema"]'),
    ],
)  # fmt: skip
def test_metadata_of_a_model_that_cannot_be_are_refused_in_one_line(made, tmp_path, key, value):
    file = _rewritten(made / "model.safetensors", tmp_path / "foreign.safetensors", **{key: value})
    with pytest.raises(InputError) as caught:
        networks.load(file, "cpu", classify=True)
    assert "\n" not in str(caught.value)


def test_both_files_carry_the_hash_of_their_weights(made):
    for name in ("encoder.safetensors", "model.safetensors"):
        tensors, facts = weights.read(made / name)
        assert facts[weights.KEY] == weights.fingerprint(tensors)
    metadata = initialisation.safetensors_metadata(made / "model.safetensors")
    assert json.loads(metadata["labels"]) == ["edema", "pneumonia"]


WRITE = """
import sys
import torch
from pathlib import Path
from cxrdist.core import weights
facts = {name: name.upper() for name in "arch stem mean std image_size labels seed é".split()}
weights.write(Path(sys.argv[1]), {"b": torch.arange(6.0), "a": torch.zeros(3, dtype=torch.int64)}, facts)
"""


def test_equal_weights_and_metadata_are_equal_bytes_in_whatever_process(tmp_path):
    subprocess.run(
        [sys.executable, "-c", WRITE, str(tmp_path / "there")],
        check=True,
        cwd=Path(__file__).resolve().parents[3],
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )
    expected = (tmp_path / "there").read_bytes()
    for _ in range(8):  # an order drawn anew for each file would be the same eight times once in 10^30
        exec(WRITE.replace("sys.argv[1]", repr(str(tmp_path / "here"))), {})
        assert (tmp_path / "here").read_bytes() == expected
    tensors, metadata = weights.read(tmp_path / "here")
    assert tensors["b"].tolist() == [0, 1, 2, 3, 4, 5] and metadata["é"] == "É"
    assert initialisation.safetensors_metadata(tmp_path / "here") == metadata
