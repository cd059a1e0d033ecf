"""`cxrdist shard NAME`: a published dataset -> a shard set."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from shards.convert.registry import CONVERTERS, Configs
from shards.phantom import PhantomConfig

HELP = "turn a published dataset into tar shards with an index"
SUMMARIES = {name: converter.summary for name, converter in CONVERTERS.items()} | {"phantom": "drawn chest X-rays"}


class _Configs(Configs):
    """The converters, and the set that draws its own images."""

    def __getitem__(self, name: str) -> type:
        return PhantomConfig if name == "phantom" else super().__getitem__(name)

    def __iter__(self) -> Iterator[str]:
        return iter(SUMMARIES)

    def __len__(self) -> int:
        return len(SUMMARIES)


CONFIGS = _Configs()


def run(config: Any) -> int:
    """Convert as the configuration says; 0 when the set (or the part) is complete."""
    if isinstance(config, PhantomConfig):
        from shards.convert.phantom import convert_phantom

        convert_phantom(config, say=_say)
        return 0
    from shards.convert.engine import convert
    from shards.convert.standing import planned

    config.check()
    convert(planned(config, say=_say), config, say=_say)
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
