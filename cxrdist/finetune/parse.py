"""Nested dicts (of TOML, of a sweep's spec) -> FinetuneConfig, with unknown keys and wrong types refused by name."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from cxrdist.core.configs import from_dict, hint, hints, known_keys
from cxrdist.errors import InputError
from cxrdist.finetune.config import FinetuneConfig, check


def check_keys(keys: Iterable[str], where: str) -> None:
    """Refuse a dotted key that the configuration does not have.

    Raises:
        InputError: naming the key, the place and the nearest known one.
    """
    for key in keys:
        if key not in known_keys(FinetuneConfig):
            raise InputError(f"{where}: unknown key {key}{hint(key, known_keys(FinetuneConfig))}")


def flat(values: Mapping[str, Any], kind: type = FinetuneConfig, prefix: str = "") -> dict[str, Any]:
    """Sections as dotted keys: {"optim": {"lr": 1}} -> {"optim.lr": 1}; a dict-valued option stays one value."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        inner = hints(kind).get(key)
        if isinstance(value, Mapping) and dataclasses.is_dataclass(inner):
            out |= flat(value, typing.cast(type, inner), f"{prefix}{key}.")
        else:
            out[prefix + key] = value
    return out


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as sections, the inverse of `flat`."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        *sections, last = key.split(".")
        place = out
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return out


def from_plain(values: Mapping[str, Any], where: str) -> FinetuneConfig:
    """The configuration of a nested dict; what is absent gets its default.

    Args:
        values: as tomllib reads it; dotted keys are taken as sections.
        where: the file or option it came from, for the error.

    Raises:
        InputError: an unknown key, a wrong type, a value out of range, a missing one.
    """
    given = flat(values)
    check_keys(given, where)
    config = from_dict(FinetuneConfig, nested(given), where)
    try:
        return check(config)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def get(config: FinetuneConfig, key: str) -> Any:
    """The value of a dotted key."""
    return functools.reduce(getattr, key.split("."), config)


def replaced(config: FinetuneConfig, values: Mapping[str, Any]) -> FinetuneConfig:
    """A copy of the configuration with dotted keys changed; values must come from a parsed configuration."""

    def change(part: Any, values: Mapping[str, Any]) -> Any:
        return dataclasses.replace(
            part,
            **{
                key: change(getattr(part, key), value)
                if isinstance(value, Mapping) and dataclasses.is_dataclass(getattr(part, key))
                else value
                for key, value in values.items()
            },
        )

    return change(config, nested(values))
