"""The keys of recorded configurations: as filters, as axes of a table, and where runs differ in them."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)
from __future__ import annotations

import functools
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from results.configs import COLUMN, SEED, config_of, parsed
from results.metric_names import COUNTS, THRESHOLD_METRICS
from results.schema import Row

_NO_MATTER = {SEED, "n_boot", "eval_shards", "level"}
"""Keys that change no value of a row: the seed is what a cell averages over, the others what else was computed (rows
say their level in a column)."""


_OF_THRESHOLDS = {"threshold"}
"""Keys that change values which depend on a threshold, and no others."""


_BY_CONTENT = {"shards", "init"}
"""Keys that hold a path in config.toml and a hash here, which older runs did not record."""


def matters(key: str, metric: str | None) -> bool:
    """Whether a key can change the value of a metric."""
    return key not in _NO_MATTER and (key not in _OF_THRESHOLDS or metric in (*THRESHOLD_METRICS, *COUNTS))


def relevant(row: Row) -> str | None:
    """What of a row's configuration can change its value, as text to compare; None when it is not known."""
    text = row.get(COLUMN)
    return None if text is None else _relevant(text, row.get("metric"))


@functools.lru_cache(maxsize=16384)
def _relevant(text: str, metric: str | None) -> str:
    return json.dumps({key: value for key, value in parsed(text).items() if matters(key, metric)}, sort_keys=True)


def differing(rows: Iterable[Row]) -> dict[str, Counter[str]]:
    """Keys that take several values among rows, as far as they can change the rows' values: key -> value -> runs."""
    held = [row for row in rows if row.get(COLUMN) is not None]
    runs = dict.fromkeys((row["source"], row[COLUMN]) for row in held)
    if len({text for _, text in runs}) < 2:
        return {}
    metrics = {row.get("metric") for row in held}
    found = varied(
        [
            {key: value for key, value in parsed(text).items() if any(matters(key, metric) for metric in metrics)}
            for _, text in runs
        ]
    )
    return {
        key: values
        for key, values in found.items()
        if not (key in _BY_CONTENT and len(values) == 2 and values[spell(None)])  # not recorded is not a difference
    }


def varied(configs: Sequence[Mapping[str, Any]]) -> dict[str, Counter[str]]:
    """Keys in which configurations differ, sorted: key -> value as text -> how many have it."""
    out = {}
    for key in sorted({key for config in configs for key in config}):
        values = Counter(spell(config.get(key)) for config in configs)
        if len(values) > 1:
            out[key] = values
    return out


_LONGEST = 80  # characters of a value that is spelled out


def spell(value: Any) -> str:
    """A value as a person reads it, and types it after --where; a long one by its beginning or size, and a hash."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        text = ",".join(map(spell, value)) or "empty"
        return text if len(text) <= _LONGEST else f"{len(value)} values {_short_hash(value)}"
    if isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef"):
        return value[:12]  # a SHA-256
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _LONGEST else f"{text[:40]}... {_short_hash(value)}"


def _short_hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:6]


def known_keys(texts: Iterable[str | None]) -> set[str]:
    """Every key that some configuration has."""
    return {key for text in set(texts) if text is not None for key in parsed(text)}


def keys_of(table: pa.Table) -> set[str]:
    """Every key that some configuration of a results table has."""
    return known_keys(pc.unique(table[COLUMN]).to_pylist())


def mask(table: pa.Table, key: str, wanted: Sequence[str]) -> tuple[pa.ChunkedArray, list[str]]:
    """Which rows have one of the wanted values of a configuration key, and all values that there are."""
    texts = pc.unique(table[COLUMN]).to_pylist()
    held = {text: None if text is None else parsed(text).get(key) for text in texts}
    known = [text for text, value in held.items() if text is not None and _same(value, wanted)]
    values = sorted({spell(value) for text, value in held.items() if text is not None})
    return pc.is_in(table[COLUMN].cast(pa.string()), pa.array(known, pa.string())), values


def _same(value: Any, wanted: Sequence[str]) -> bool:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return any(_number(word) == value for word in wanted)
    if isinstance(value, (list, tuple)):  # whose own commas stand between values
        return spell(value) == ",".join(wanted)
    return spell(value) in wanted


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def set_axis(rows: Iterable[Row], key: str) -> None:
    """Give rows their value of a configuration key, so that it can be an axis of a table."""
    for row in rows:
        value = (config_of(row) or {}).get(key)
        row[key] = value if isinstance(value, (int, float)) and not isinstance(value, bool) else spell(value)
