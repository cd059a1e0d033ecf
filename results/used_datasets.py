"""Whose data a run read: licence, paper and home of its shard sets, kept in run.json by content.

A run notes them from the cards when it is made, and `cxrdist evaluate` adds those of further test sets, so that a
report can name them when the shard sets themselves are gone. They are not part of the signature.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from results import atomic

KEY = "datasets"
"""Of run.json: SHA-256 of a shard set -> its facts."""

FACTS = ("name", "source", "licence", "citation", "home")
"""What is noted of a shard set, under the names of its card; facts that the card does not have are left out."""

Facts = dict[str, str]


def facts_of(card: Any) -> Facts:
    """What is noted of a card: an object with these attributes, or dataset.json as a dict."""
    read = card.get if isinstance(card, Mapping) else lambda name: getattr(card, name, None)
    found = {name: read(name) for name in FACTS}
    return {name: value for name, value in found.items() if isinstance(value, str) and value}


def of_info(info: Mapping[str, Any]) -> dict[str, Facts]:
    """The facts in run.json, by content; none of an older run."""
    held = info.get(KEY)
    if not isinstance(held, dict):
        return {}
    return {content: facts_of(facts) for content, facts in held.items() if isinstance(facts, dict)}


class HasInfo(Protocol):
    """What of a `run.Run` is needed here."""

    info: Path

    def read_info(self) -> dict[str, Any]:
        """run.json."""
        ...


def note(run: HasInfo, datasets: Mapping[str, Facts]) -> None:
    """Add what run.json does not have yet; the caller holds the run."""
    info = run.read_info()
    known = of_info(info)
    if new := {content: facts for content, facts in datasets.items() if content not in known}:
        info[KEY] = {**known, **new}
        atomic.write_text(run.info, json.dumps(info, indent=2) + "\n")
