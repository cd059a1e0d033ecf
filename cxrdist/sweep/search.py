"""Hyper-parameter search: which settings are tried. The draws are a function of the spec, so a search resumes exactly.

Which trial is best is decided on val alone (see `best`); the test numbers of the other trials are never looked at.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from cxrdist.core.rng import uniform
from cxrdist.errors import InputError
from cxrdist.finetune.config import FinetuneConfig
from cxrdist.finetune.parse import check_keys, flat, from_plain, get
from cxrdist.sweep.config import SearchConfig
from cxrdist.sweep.folder import SweepCell
from results.identity import plain

_STREAM = 900
_RANGE_KEYS = {"low", "high", "log", "integer"}


def draws(config: SearchConfig, base: FinetuneConfig) -> list[dict[str, Any]]:
    """Settings to try in each cell, dotted key -> value; one empty setting when there is no search.

    Raises:
        InputError: a space that is empty or names unknown keys, a value of a wrong type, samples below 1.
    """
    if config.method == "none":
        if config.space:
            raise InputError("[search] space is given but method is none; say method = grid, random or asha")
        return [{}]
    if not config.space:
        raise InputError("[search] space is empty; give it at least one key with values")
    space = flat(config.space)
    check_keys(space, "[search] space")
    if config.method == "grid":
        return _grid(space, base)
    return _random(config, space, base)


def _grid(space: Mapping[str, Any], base: FinetuneConfig) -> list[dict[str, Any]]:
    for key, values in space.items():
        if not isinstance(values, list) or not values:
            raise InputError(f"[search] space.{key} must be a list of values for method grid")
    points = [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]
    return [_parsed(base, point) for point in points]


def _random(config: SearchConfig, space: Mapping[str, Any], base: FinetuneConfig) -> list[dict[str, Any]]:
    table = uniform(config.seed, _STREAM, 0, config.samples, len(space))
    seen: dict[str, dict[str, Any]] = {}
    for row in table:
        point = {key: _value(key, values, float(u)) for (key, values), u in zip(space.items(), row, strict=True)}
        seen.setdefault(json.dumps(point, sort_keys=True), _parsed(base, point))
    return list(seen.values())


def _value(key: str, values: Any, u: float) -> Any:
    """The value at share `u` in [0, 1) of a list or a range."""
    if isinstance(values, list) and values:
        return values[int(u * len(values))]
    if not isinstance(values, Mapping) or not {"low", "high"} <= set(values) <= _RANGE_KEYS:
        raise InputError(f"[search] space.{key} must be a list, or a table {{low, high, log, integer}}")
    low, high = float(values["low"]), float(values["high"])
    if not low < high or (values.get("log") and low <= 0):
        raise InputError(f"[search] space.{key}: low {low} must be below high {high}, and above 0 with log")
    if values.get("integer"):
        return int(low + u * (int(high) - int(low) + 1))
    drawn = (
        math.exp(math.log(low) + u * (math.log(high) - math.log(low))) if values.get("log") else low + u * (high - low)
    )
    return float(f"{drawn:.4g}")  # short enough to read in a table, and the same number when read back from it


def _parsed(base: FinetuneConfig, point: Mapping[str, Any]) -> dict[str, Any]:
    parsed = from_plain({**flat(plain(base)), **point}, "[search] space")
    return {key: get(parsed, key) for key in point}


def trials(cells: Iterable[SweepCell], searched: Iterable[str]) -> list[dict[str, Any]]:
    """One row per trial: its cell and settings, val AUROC, epochs, seconds, `state`, and `chosen`.

    `chosen` marks the trial with the best val AUROC among those that differ in the searched settings alone; ties go to
    the one listed first.
    """
    searched = list(searched)
    rows = []
    for cell in cells:
        done = cell.run.read_done() if cell.run.is_done else {}
        rows.append(
            {
                **{key: value for key, value in cell.values.items()},
                "signature": cell.signature,
                "state": done.get("ended", "done") if done else "missing",
                "val_auroc": done.get("val_auroc"),
                "epochs": done.get("epochs"),
                "wall_seconds": done.get("wall_seconds"),
                "chosen": False,
            }
        )
    groups: dict[str, list[dict[str, Any]]] = {}
    for cell, row in zip(cells, rows, strict=True):
        rest = {key: str(value) for key, value in cell.values.items() if key not in searched}
        groups.setdefault(json.dumps(rest, sort_keys=True), []).append(row)
    for group in groups.values():
        scored = [row for row in group if row["val_auroc"] is not None]
        if scored:
            max(scored, key=lambda row: row["val_auroc"])["chosen"] = True
    return rows
