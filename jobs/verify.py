"""`cxrdist verify SHARDS`: hashes, counts, images, patients shared between splits; with --against, between sets."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated

HELP = "check a shard set: hashes, counts, images, patients shared between splits, what it shares with other sets"
POSITIONALS = ("shards",)


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to verify."""

    shards: str
    """Folder of the shard set."""
    decode: bool = True
    """Decode every image, not only compare hashes; with --against, compare pictures and not only names."""
    workers: Annotated[int | None, "[1, 1024]"] = None
    """Processes; None: one per core this process may use."""
    against: list[str] | str | None = None
    """Other shard sets, folders or URLs, as a list or separated by commas: which images and patients are in
    both? An image or patient in train or val of one and in test of the other is a problem. None: no other set."""
    pairs: Annotated[int, "[0, inf)"] = 10
    """Of --against: pairs of shared images that are printed for each set."""
    out: str | None = None
    """Of --against: CSV or Parquet file (by its ending) of all pairs and shared patients; an older one is replaced."""


def run(config: Config) -> int:
    """Print every problem; 0 where there is none, else 1."""
    from cxrdist.finetune.config import words
    from jobs import _against
    from jobs._options import UsageError
    from shards.read.card import read_card
    from shards.verify import need_set, verify

    path, others = need_set(config.shards), words(config.against) or []
    if config.out is not None and not others:
        raise UsageError("cxrdist verify: --out is of --against: name the other shard set")
    _against.check_out(config.out)
    for other in others:
        read_card(other)  # before an hour of reading
    problems = verify(path, decode_images=config.decode, workers=config.workers, say=_say)
    for line in problems:
        print(line)
    if problems:
        more = ", not compared with others" if others else ""
        print(f"cxrdist: {path}: {_against.count(len(problems), 'problem')}{more}", file=sys.stderr)
        return 1
    card = read_card(path)
    print(f"{path}: {card.n_samples} samples in {len(card.shards)} tars, all whole")
    return _compare(config, others) if others else 0


def _compare(config: Config, others: list[str]) -> int:
    """Print and write what the set shares with others; 1 where a test would meet what was learnt from."""
    from jobs import _against
    from shards.overlap.find import compare, open_side

    one = open_side(config.shards, pictures=config.decode, workers=config.workers, say=_say)
    overlaps, leaks = [], []
    for where in others:
        other = open_side(where, pictures=config.decode, workers=config.workers, say=_say)
        found = compare(one, other, workers=config.workers, say=_say)
        overlaps.append(found)
        for line in ["", *_against.describe(found, config.pairs)]:
            print(line)
        leaks += _against.leakage(found)
    if config.out is not None:
        _against.write(config.out, overlaps)
    if leaks:
        print("", *leaks, sep="\n")
        print(f"cxrdist: {config.shards}: {_against.count(len(leaks), 'problem')}", file=sys.stderr)
        return 1
    how = "" if config.decode else " by key, file name or patient id (pictures were not compared)"
    print(f"\nno leakage found{how}: nothing in train or val of one set is in the test split of another")
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
