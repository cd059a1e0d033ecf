"""`cxrdist shard NAME`: a published data set -> a shard set."""

from __future__ import annotations

import sys
from typing import Any

from shards.config import ChexpertConfig, CsvConfig, KermanyConfig, MedmnistConfig, NihConfig
from shards.phantom import PhantomConfig

HELP = "turn a published dataset into tar shards with an index"
CONFIGS: dict[str, type] = {
    "nih": NihConfig,
    "chexpert": ChexpertConfig,
    "kermany": KermanyConfig,
    "medmnist": MedmnistConfig,
    "csv": CsvConfig,
    "phantom": PhantomConfig,
}


def run(config: Any) -> int:
    """Convert as the configuration says; 0 when the set (or the part) is complete."""
    if isinstance(config, PhantomConfig):
        from shards.generated import convert_phantom

        convert_phantom(config, say=_say)
        return 0
    from shards.converters import plan
    from shards.writer import convert

    config.check()
    convert(plan(config), config, say=_say)
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
