"""`cxrdist verify SHARDS`: hashes, counts, images, and patients shared between splits."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated

HELP = "check a shard set: hashes, counts, images, patients shared between splits"
POSITIONALS = ("shards",)


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to verify."""

    shards: str
    """Folder of the shard set."""
    decode: bool = True
    """Decode every image, not only compare hashes."""
    workers: Annotated[int | None, "[1, 1024]"] = None
    """Processes; None: one per core this process may use."""


def run(config: Config) -> int:
    """Print every problem; 0 where there is none, else 1."""
    from shards.card import read_card
    from shards.verify import need_set, verify

    path = need_set(config.shards)
    problems = verify(
        path,
        decode_images=config.decode,
        workers=config.workers,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    for line in problems:
        print(line)
    if problems:
        print(f"cxrdist: {path}: {len(problems)} problem{'s' if len(problems) > 1 else ''}", file=sys.stderr)
        return 1
    card = read_card(path)
    print(f"{path}: {card.n_samples} samples in {len(card.shards)} tars, all whole")
    return 0
