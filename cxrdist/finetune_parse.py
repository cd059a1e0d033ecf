"""Nested dicts (of TOML, of a sweep's spec) -> FinetuneConfig, with unknown keys and wrong types refused by name."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from cxrdist.errors import InputError
from cxrdist.finetune_config import FinetuneConfig, check


@functools.cache
def _parser() -> Any:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(FinetuneConfig, None)
    return parser


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


@functools.cache
def known_keys(kind: type = FinetuneConfig, prefix: str = "") -> tuple[str, ...]:
    """Every key of the configuration, nested ones dotted (`optim.lr`)."""
    keys: list[str] = []
    for field in dataclasses.fields(kind):
        keys.append(prefix + field.name)
        if dataclasses.is_dataclass(_hints(kind)[field.name]):
            keys += known_keys(_hints(kind)[field.name], f"{prefix}{field.name}.")
    return tuple(keys)


def check_keys(keys: Iterable[str], where: str) -> None:
    """Refuse a dotted key that the configuration does not have.

    Raises:
        InputError: naming the key, the place and the nearest known one.
    """
    for key in keys:
        if key not in known_keys():
            near = difflib.get_close_matches(key, known_keys(), n=1) or [
                known for known in known_keys() if known.rpartition(".")[2] == key.rpartition(".")[2]
            ]
            hint = f"; did you mean {near[0]}?" if near else f"; known keys: {', '.join(known_keys())}"
            raise InputError(f"{where}: unknown key {key}{hint}")


def flat(values: Mapping[str, Any], kind: type = FinetuneConfig, prefix: str = "") -> dict[str, Any]:
    """Sections as dotted keys: {"optim": {"lr": 1}} -> {"optim.lr": 1}; a dict-valued option stays one value."""
    out: dict[str, Any] = {}
    hints = _hints(kind)
    for key, value in values.items():
        inner = hints.get(key)
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
    from jsonargparse import ArgumentError

    given = flat(values)
    check_keys(given, where)
    for name in ("shards", "out"):
        if name not in given:
            raise InputError(f"{where}: {name} is missing")
    parser = _parser()
    try:
        config = parser.instantiate(parser.parse_object(nested(given))).as_dict()
    except ArgumentError as error:
        raise InputError(f"{where}: {_short(str(error))}") from error
    try:
        return check(_build(FinetuneConfig, config))
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _build(kind: type, values: Mapping[str, Any]) -> Any:
    hints = _hints(kind)
    return kind(
        **{
            key: _build(hints[key], value)
            if isinstance(value, Mapping) and dataclasses.is_dataclass(hints[key])
            else value
            for key, value in values.items()
        }
    )


def _short(message: str) -> str:
    """Jsonargparse explains over several lines which member of a union refused what; one line is enough here."""
    return " ".join(message.split())[:300]


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
