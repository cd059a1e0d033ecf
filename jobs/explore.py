"""`cxrdist explore`: one HTML page to browse an embedding of a shard set."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Literal

HELP = "Write one self-contained HTML page: a map of a shard set's embeddings with the image under the pointer."
POSITIONALS = ("run",)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which network, over which images."""

    run: str
    """A pretraining or fine-tuning run, or a .safetensors file of one."""
    shards: str | None = None
    """Shard set; None = the one the run was trained on."""
    split: str = "test"
    """Its split."""
    out: str | None = None
    """HTML file; None = RUN/explore.html."""
    method: Literal["pca", "tsne", "umap"] = "pca"
    """How features become a map; umap needs the extra `explore`."""
    limit: int = 2000
    """Most images on the page (about 2 kB each), drawn at random."""
    seed: int = 0
    """Of the draw, and of tsne and umap."""
    device: str = "auto"
    """auto, cpu or cuda."""


def run(config: Config) -> int:
    """Write the page."""
    from pathlib import Path

    from cxrdist import encoder
    from cxrdist.errors import InputError
    from cxrdist.explore import explore
    from shards import ShardSet

    if config.limit < 4 or config.seed < 0:
        raise InputError(f"limit = {config.limit}, seed = {config.seed}: must be at least 4 and 0")
    network = encoder.load(config.run, config.device)
    shards = ShardSet(encoder.own_shards(config.run, config.shards), config.split)
    if config.out is None and not Path(config.run).is_dir():
        raise InputError(f"{config.run} is a file, not a run: name the page with --out")
    out = Path(config.out) if config.out is not None else Path(config.run) / "explore.html"
    labels = encoder.learnt_labels(config.run, network.classifier) if network.classifier is not None else []
    count = explore(network, shards, out, labels=labels, method=config.method, limit=config.limit, seed=config.seed)
    size = out.stat().st_size / 1e6
    print(f"{out}: {count} images, {size:.1f} MB; open it in a browser, it needs no network", file=sys.stderr)
    return 0
