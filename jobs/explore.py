"""`cxrdist explore`: one HTML page to browse an embedding of a shard set."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated, Literal

from cxrdist.inference.options import LookConfig

HELP = "Write one self-contained HTML page: a map of a shard set's embeddings with the image under the pointer."
POSITIONALS = ("run",)


@dataclass(frozen=True, kw_only=True)
class Config(LookConfig):
    """Which network, over which images, by which map; `out` is an HTML file, None = RUN/explore.html."""

    method: Literal["pca", "tsne", "umap"] = "pca"
    """How features become a map; umap needs the extra `explore`."""
    limit: Annotated[int, "[4, 10^6]"] = 2000
    """Most images on the page (about 2 kB each), drawn at random."""
    seed: Annotated[int, "[0, 2^32)"] = 0
    """Of the draw, and of tsne and umap."""


def run(config: Config) -> int:
    """Write the page."""
    from cxrdist.errors import InputError
    from cxrdist.inference import network as networks
    from cxrdist.inference.explore import explore
    from cxrdist.inference.options import out_of, shards_of

    if config.limit < 4 or config.seed < 0:
        raise InputError(f"limit = {config.limit}, seed = {config.seed}: must be at least 4 and 0")
    network = networks.load(config.run, config.device)
    shards, out = shards_of(config), out_of(config, "explore.html")
    labels = networks.learnt_labels(config.run, network.classifier) if network.classifier is not None else []
    count = explore(network, shards, out, labels=labels, method=config.method, limit=config.limit, seed=config.seed)
    size = out.stat().st_size / 1e6
    print(f"{out}: {count} images, {size:.1f} MB; open it in a browser, it needs no network", file=sys.stderr)
    return 0
