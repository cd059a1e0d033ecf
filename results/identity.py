"""Configurations as plain values, what identifies one, and how two differ."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any


def plain(value: Any) -> Any:
    """A configuration as plain TOML-ready values: no None, tuples as lists, paths as strings."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value if item is not None]
    if isinstance(value, (str, bool, int, float)):
        return value
    return str(value)


def signature(config: Mapping[str, Any], ignore: Iterable[str] = ()) -> str:
    """Identity of a run: 12 hexadecimal digits of the SHA-256 of its configuration as canonical JSON.

    Args:
        config: what determines the result, nested; None means "not set" and counts as absent, 1.0 counts as 1.
        ignore: names that do not change the result, dotted for nested ones (`optim.fused`).
    """
    text = json.dumps(_canonical(_without(plain(config), set(ignore))), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def differences(held: Mapping[str, Any], wanted: Mapping[str, Any], ignore: Iterable[str] = ()) -> list[str]:
    """What tells a recorded configuration from a wanted one, e.g. `optim.lr is 0.1 there, 0.3 here`.

    Args:
        held: nested, as in config.toml.
        wanted: nested.
        ignore: dotted names that do not count.
    """
    found, ignored = [], set(ignore)

    def compare(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str) -> None:
        for key in [*other, *(key for key in one if key not in other)]:
            was, value = one.get(key), other.get(key)
            if prefix + key in ignored:
                continue
            if isinstance(value, dict) or isinstance(was, dict):
                compare(
                    was if isinstance(was, dict) else {}, value if isinstance(value, dict) else {}, f"{prefix}{key}."
                )
            elif _canonical(was) != _canonical(value):
                found.append(f"{prefix}{key} is {_said(was)} there, {_said(value)} here")

    compare(held, plain(wanted), "")
    return found


def _said(value: Any) -> str:
    """A setting as a message shows it; None is how options spell what is not set."""
    return "None" if value is None else json.dumps(value, ensure_ascii=False)


def _without(config: dict[str, Any], ignore: set[str], prefix: str = "") -> dict[str, Any]:
    kept = {}
    for key, value in config.items():
        if prefix + key not in ignore:
            kept[key] = _without(value, ignore, f"{prefix}{key}.") if isinstance(value, dict) else value
    return kept


def _canonical(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
