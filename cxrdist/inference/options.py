"""What the commands that look into a run (explain, explore) share. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cxrdist.core.shard_sets import absolute, recorded, run_of
from cxrdist.errors import InputError


@dataclass(frozen=True, kw_only=True)
class LookConfig:
    """Which networks, on which images."""

    runs: list[str]
    """One run or several, or .safetensors files of them."""
    shards: str | None = None
    """Shard set, a folder or a URL; None = the one the run was trained on."""
    split: str = "test"
    """Its split."""
    stage: Literal["none", "ram", "disk"] = "none"
    """Where the shard set is copied before reading: ram is /dev/shm, disk the node's own disk."""
    out: str | None = None
    """What to write; None = a name inside the (first) run."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto, cpu or cuda."""

    @property
    def run(self) -> str:
        """The first run, whose shard set is looked at unless another is named."""
        return self.runs[0]


def shards_of(config: LookConfig) -> Any:
    """The split that a look is at."""
    from cxrdist.inference.network import own_shards

    return opened(config.run, own_shards(config.run, config.shards), config.split, config.stage)


def opened(run: str, place: str, split: str | None, stage: str) -> Any:
    """A shard set that a network looks at; at a place that its run knows, the set that the run knows.

    Raises:
        InputError: no such set or split, or another set than the run found there when it was made.
    """
    from shards import ShardSet

    place = absolute(place)
    return ShardSet(place, split, stage=stage, sha256=recorded(run_of(run), place))


def out_of(config: LookConfig, name: str) -> Path:
    """Where to write: what was asked for, or `name` inside the run.

    Raises:
        InputError: the run is a file, so there is no inside.
    """
    if config.out is not None:
        return Path(config.out)
    if not Path(config.run).is_dir():
        raise InputError(f"{config.run} is a file, not a run: say with --out where to write")
    return Path(config.run) / name
