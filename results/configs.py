"""The configuration behind a result, as far as it determines what was learnt.

Rows of results carry it in their column `config`: JSON of dotted names (`optim.lr`), without the seed, with shard sets
and encoders by content instead of by path. So runs that differ in more than their seed are distinguished, and the keys
named, from a collected file alone.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results.errors import InputError
from results.identity import plain
from results.run import Run

if TYPE_CHECKING:
    from results.schema import Row

COLUMN = "config"
"""The column that holds a configuration."""

SEED = "seed"


_OF_THE_MACHINE = {
    *(
        "out",
        "device",
        "workers",
        "threads",
        "stage",
        "cache",
        "backbones",
        "variant",
        "log_every",
        "tensorboard",
        "track",
    ),
    *("checkpoint_seconds", "nproc", "max_restarts", "compile", "checkpoint", "init_signature"),
}
"""Keys that do not change what is learnt, for runs from before the column, whose config.toml is read instead."""


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as dotted names."""
    out: dict[str, Any] = {}
    for key, value in config.items():
        out |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return out


def config_text(
    config: Mapping[str, Any], *, ignore: Iterable[str] = (), content: Mapping[str, Any] | None = None
) -> str:
    """A configuration as the column holds it.

    Args:
        config: nested; None means not set and is left out, as is the seed.
        ignore: names of settings that do not change what is learnt; of a table, all that is in it.
        content: what to record in place of a path: key -> SHA-256, or None to leave it out.
    """
    left_out = {SEED, *ignore}
    values = {
        key: value
        for key, value in flat(plain({**config, **(content or {})})).items()
        if not any(key == name or key.startswith(f"{name}.") for name in left_out)
    }
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def of_run(run: Run) -> str | None:
    """The configuration of a run whose results do not hold it, from its folder; None when that is gone or damaged."""
    try:
        config, info = run.read_config(), run.read_info()
    except InputError:
        return None
    held, places = run.shard_hashes(), config.get("shards")
    content: dict[str, Any] = {"shards": held.get(str(places))}
    if isinstance(places, list):
        content = {"shards": [held.get(str(place)) for place in places]}
    if config.get("init") not in ("scratch", "imagenet", "kmeans-patches"):
        content["init"] = (info.get("init") or {}).get("sha256")  # else told by the columns init and init_signature
    return config_text(config, ignore=_OF_THE_MACHINE, content=content | {"eval_shards": None})


def beside(source: Path) -> str | None:
    """The configuration of the run that a metrics file lies in."""
    folder = source.parent if source.name == "run.json" else source.parent.parent
    run = Run(folder)
    return of_run(run) if run.config.is_file() else None


@functools.lru_cache(maxsize=16384)
def parsed(text: str) -> dict[str, Any]:
    """A configuration as a dict of dotted names; shared, so not to be changed.

    Raises:
        InputError: the text is no JSON object.
    """
    try:
        values = json.loads(text)
    except ValueError as error:
        raise InputError(f"the column {COLUMN} holds no configuration: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"the column {COLUMN} holds no configuration but {text[:40]!r}")
    return values


def config_of(row: Row) -> dict[str, Any] | None:
    """The configuration of a row's run; None when it is not known."""
    text = row.get(COLUMN)
    return None if text is None else parsed(text)
