"""`cxrdist embed`: encoder features of a shard set, one row per sample."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Literal

HELP = "Write encoder features of a shard set to a Parquet file, one row per sample."
POSITIONALS = ("run",)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which network, over which images."""

    run: str
    """A pretraining or fine-tuning run, or a .safetensors file of one."""
    shards: str
    """Shard set to embed, a folder or a URL."""
    out: str
    """Parquet file to write: key, split, patient_id, view, sex, age, label_*, features (list of float32)."""
    split: str | None = None
    """train, val or test; None = all."""
    stage: Literal["none", "ram", "disk"] = "none"
    """Where the shard set is copied before reading: ram is /dev/shm, disk the node's own disk."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto, cpu or cuda."""


def run(config: Config) -> int:
    """Embed and say what was written."""
    from pathlib import Path

    from cxrdist.inference import network
    from cxrdist.inference.embed import embed
    from cxrdist.inference.options import opened

    shards = opened(config.run, config.shards, config.split, config.stage)
    count = embed(network.load(config.run, config.device), shards, Path(config.out))
    print(f"{config.out}: features of {count} images", file=sys.stderr)
    return 0
