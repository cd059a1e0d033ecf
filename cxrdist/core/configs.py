"""Plain nested dicts, as TOML holds them, to checked configurations; wrong keys, types and values refused by name.

jsonargparse knows the types, `shards.ranges` the ranges beside them. Free of torch.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

from cxrdist.errors import InputError
from shards.ranges import out_of_range, ranges

METHOD = 2
"""Part of the signature of every run that trains layers; raised when one configuration comes to give other numbers, so
that an earlier run is not returned, resumed or mixed with new ones. 2: crops drawn until they fit, a fixed room of
random numbers, training images decoded with room, no decay of position embeddings."""

_KINDS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    list: "a list",
    tuple: "a list",
    dict: "a table",
    type(None): "null",
}
_REFUSED = re.compile(r'Parser key "([^"]+)": .*?(?:Given value|Got value): (.*)')
_SHOWN = 100  # characters of a refused value


@functools.cache
def hints(kind: type) -> dict[str, Any]:
    """The types of a configuration's settings by name, without their ranges."""
    return typing.get_type_hints(kind)


def is_section(kind: Any) -> bool:
    """Whether a setting of this type is a section with settings of its own."""
    return dataclasses.is_dataclass(kind) and isinstance(kind, type)


def settings(kind: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting with its type, those of sections dotted (`optim.lr`), each section before its settings."""
    for field in dataclasses.fields(kind):
        inner = hints(kind)[field.name]
        yield prefix + field.name, inner
        if is_section(inner):
            yield from settings(inner, f"{prefix}{field.name}.")


@functools.cache
def known_keys(kind: type) -> tuple[str, ...]:
    """Every key of a configuration, nested ones dotted."""
    return tuple(key for key, _ in settings(kind))


def from_dict(kind: type, values: Mapping[str, Any], where: str = "") -> Any:
    """A configuration from the nested plain dict that a TOML file holds; what is absent gets its default.

    Args:
        kind: the dataclass.
        values: its fields by name.
        where: the file or option they came from, for the error.

    Raises:
        InputError: an unknown key, a section that is not a table, a wrong type, a value out of range, a missing one.
    """
    from jsonargparse import ArgumentError

    start = f"{where}: " if where else ""
    if wrong := wrong_shape(values, kind):
        raise InputError(start + wrong)
    for field in dataclasses.fields(kind):
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if needed and field.name not in values:
            raise InputError(f"{start}{field.name} is missing")
    parser = _parser(kind)
    try:
        parsed = parser.instantiate(parser.parse_object(dict(values))).as_dict()
    except (ArgumentError, OverflowError) as error:  # the second: an integer that no float can hold
        raise InputError(start + why_refused(str(error), kind)) from error
    config = _build(kind, parsed)
    if wrong := out_of_range(config):
        raise InputError(start + wrong)
    return config


@functools.cache
def _parser(kind: type) -> Any:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, None)
    return parser


def _build(kind: type, values: Mapping[str, Any]) -> Any:
    def value_of(key: str, value: Any) -> Any:
        return _build(hints(kind)[key], value) if isinstance(value, Mapping) and is_section(hints(kind)[key]) else value

    return kind(**{key: value_of(key, value) for key, value in values.items()})


def wrong_shape(values: Mapping[str, Any], kind: type, prefix: str = "") -> str | None:
    """What is wrong with a nested dict: a key is not a setting, a section is not a table, null is not a value.

    Returns:
        one line without the file's name, or None.
    """
    kinds = dict(settings(kind))  # also of "optim.lr" = 3: a section's setting by its whole name
    for name, value in values.items():
        key = prefix + name
        if name not in kinds:
            known = known_keys(kind) if not prefix else [f"{prefix}{own}" for own in hints(kind)]
            return f"unknown key {key}{hint(key, known)}"
        inner = kinds[name]
        if not is_section(inner):
            if value is None and inner is not Any and type(None) not in get_args(inner):
                return f"{key} = null: must be {' or '.join(_words(inner))}"  # jsonargparse would take it
            continue
        if not isinstance(value, Mapping):
            return f"{key} = {str(value)[:_SHOWN]}: must be a table [{key}] with the keys {', '.join(hints(inner))}"
        if wrong := wrong_shape(value, inner, f"{key}."):
            return wrong
    return None


def hint(key: str, known: Sequence[str]) -> str:
    """The end of the error about an unknown key: the nearest known one, or all."""
    near = nearest(key, known)
    return f"; did you mean {near}?" if near else f"; known keys: {', '.join(known)}"


def nearest(key: str, known: Sequence[str]) -> str | None:
    """The known key that a mistyped one stands for: spelled alike, or the same setting of a section."""
    last = key.rpartition(".")[2]
    alike = [name for name in known if difflib.get_close_matches(last, [name.rpartition(".")[2]])]
    return (difflib.get_close_matches(key, known, n=1) or alike or [None])[0]


def why_refused(message: str, kind: type) -> str:
    """Jsonargparse's error as one line: the key, the value, and what is allowed in words."""
    text = " ".join(message.split())
    refused, kinds = _REFUSED.fullmatch(text), dict(settings(kind))
    if refused is None or is_section(kinds.get(refused[1], refused)) or refused[1] not in kinds:
        return text[:400]
    key, value = refused.groups()
    allowed = ranges(kind).get(key)
    wanted = f"{' or '.join(_words(kinds[key]))}{f', {allowed}' if allowed else ''}"
    return f"{key} = {value[:_SHOWN]}: must be {wanted}"


def _words(kind: Any) -> list[str]:
    """What a type allows, in words."""
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return list(dict.fromkeys(word for part in get_args(kind) for word in _words(part)))
    if origin is Literal:
        return [str(choice) for choice in get_args(kind)]
    if origin in (list, tuple) and get_args(kind):
        each = " or ".join(dict.fromkeys(word for part in get_args(kind) for word in _words(part)))
        return [f"a list ({each} each)"]
    return [_KINDS.get(origin or kind, str(kind))]
