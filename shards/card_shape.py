"""Which values the fields of a card may have, so that a card of another program fails when it is read and not later."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any


def misshapen(values: Mapping[str, Any], kinds: Mapping[str, str]) -> str | None:
    """The first field of a card that holds what it cannot, or None.

    Args:
        values: name -> value, as JSON has it.
        kinds: name -> type as `Card` annotates it.
    """
    return next((name for name in values if not _KINDS[kinds[name]](values[name]) or not _deep(name, values)), None)


def _deep(name: str, values: Mapping[str, Any]) -> bool:
    """Whether the parts of a field are as they must be."""
    if name == "counts":
        return all(map(_is_count, values[name].values()))
    if name == "shards":
        return all(map(_is_tar, values[name]))
    return all(map(_plain, values[name])) if name == "files" else True


def _is_count(split: Any) -> bool:
    labels = split.get("labels", {}) if isinstance(split, dict) else None
    return isinstance(labels, dict) and _whole(split.get("n")) and all(map(_table_of(_whole), labels.values()))


def _is_tar(entry: Mapping[str, Any]) -> bool:
    texts, numbers = ("name", "split", "sha256"), ("n", "bytes")
    return (
        all(isinstance(entry.get(key), str) for key in texts)
        and all(_whole(entry.get(key)) for key in numbers)
        and _plain(entry["name"])
    )


def _plain(name: str) -> bool:
    """Whether a name is that of a file inside the folder."""
    return PurePosixPath(name).name == name and "\0" not in name and not name.startswith(".")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _table_of(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(holds, value.values()))


def _list_of(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(holds, value))


def _of(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind)


_KINDS: dict[str, Callable[[Any], bool]] = {
    "str": _of(str),
    "bool": _of(bool),
    "int": _whole,
    "float": _number,
    "Mapping[str, Any]": _of(dict),
    "Mapping[str, str]": _table_of(_of(str)),
    "Mapping[str, int]": _table_of(_whole),
    "tuple[str, ...]": _list_of(_of(str)),
    "tuple[Mapping[str, Any], ...]": _list_of(_of(dict)),
}
