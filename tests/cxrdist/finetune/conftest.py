"""What several tests of fine-tuning start from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cxrdist.core.backbones import save_encoder
from tests.cxrdist import findings
from tests.cxrdist.finetune.replaced import put


@pytest.fixture(scope="session")
def encoder(tmp_path_factory) -> Path:
    """An encoder file as pretraining writes it."""
    torch.manual_seed(1)
    from cxrdist.core.backbones import build_backbone

    path = tmp_path_factory.mktemp("encoder") / "encoder.safetensors"
    facts = {"arch": "resnet10t", "in_chans": 1, "image_size": 32, "mean": 0.4, "std": 0.2, "stem": "small"}
    save_encoder(path, build_backbone("resnet10t", 32, stem="small"), {**facts, "signature": "abc", "dataset": "nih"})
    return path


@pytest.fixture(scope="session")
def pair(tmp_path_factory) -> tuple[Path, Path]:
    """Two shard sets of one name and other pictures."""
    folder = tmp_path_factory.mktemp("pair")
    return findings.make(folder / "a", name="here", seed=0), findings.make(folder / "b", name="here", seed=1)


@pytest.fixture
def place(pair, tmp_path) -> Path:
    """Where the first of them lies, until `put` lays the other there."""
    return put(pair[0], tmp_path / "place")
