"""Shard sets and encoders laid where a run was made with others of the same name; shared by tests of identity."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from cxrdist.core.backbones import build_backbone, save_encoder
from cxrdist.sweep import folder
from cxrdist.sweep import run as sweeps
from cxrdist.sweep.config import SweepConfig
from cxrdist.sweep.folder import SweepFolder
from cxrdist.sweep.grid import expand
from shards import read_card
from tests.cxrdist.conftest import TINY


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


def sweep(place: Path, out: Path, **changes: Any) -> tuple[SweepConfig, list[folder.SweepCell], SweepFolder]:
    base = {"arch": TINY, "image_size": 32, "mode": "linear", "n_boot": 0, "shards": str(place), **changes}
    config = SweepConfig(out=str(out), axes={"seed": [0, 1]}, finetune=base, device="cpu")
    ledger, found = SweepFolder(out), expand(config)
    ledger.claim()
    sweeps._write_plan(config, found, ledger)
    return config, found, ledger
