"""The axes of a sweep's spec, and its named variants, every key checked.

An axis is a list of values; a cell has one of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cxrdist.core.augment_config import AUGMENT_PARTS
from cxrdist.errors import InputError
from cxrdist.finetune.config import words
from cxrdist.finetune.parse import check_keys, flat, from_plain
from cxrdist.sweep.config import SweepConfig

COLUMNS = ("shards", "init", "label_fraction", "mode", "seed", "arch")
"""Axes that have a column of their own in the results; the others are named in the column `variant`."""

VARIANT = "variant"
"""Axis of the named variants, whose names stand in the results as they are written."""

WITHOUT = "augment_without"
NOTHING = "nothing"


@dataclass(frozen=True)
class AxisValue:
    """One value of one axis: what it is called, and the options it sets."""

    name: Any
    options: dict[str, Any]


def axes_of(config: SweepConfig) -> dict[str, list[AxisValue]]:
    """The axes in the spec's order, command-line axes in place of the spec's, every key checked.

    Raises:
        InputError: an unknown key, an axis without values, an axis that is not a list, a value given twice.
    """
    given: dict[str, Any] = dict(config.axes)
    shared = flat(config.finetune)
    for name, kind in (("shards", str), ("init", str), ("label_fraction", float), ("mode", str), ("seed", int)):
        value = getattr(config, name)
        if value is not None:
            given[name] = _typed(name, value, kind)
            shared.pop(name, None)
    from_plain({"shards": "-"} | shared | {"out": "-"}, "[finetune]")  # wrong keys and types, before they are used
    off = list(shared.pop("augment.off", []))
    axes: dict[str, list[AxisValue]] = {}
    for name, values in given.items():
        if not isinstance(values, Sequence) or isinstance(values, str):
            raise InputError(f"axes.{name} must be a list of values, not {values!r}")
        if not values:
            raise InputError(f"axes.{name} is empty, so there is no cell; give it a value or leave it out")
        choices = [_choice(name, value, off) for value in values]
        if len({repr(choice.name) for choice in choices}) < len(choices):
            raise InputError(f"axes.{name} names a value twice: {', '.join(str(c.name) for c in choices)}")
        axes[name] = choices
    if config.variant:
        axes[VARIANT] = _variants(config.variant, axes)
    twice = sorted(
        {key for name, choices in axes.items() if name != VARIANT for c in choices for key in c.options} & set(shared)
    )
    if twice:
        raise InputError(f"{twice[0]} is given both in [axes] and in [finetune]; keep one")
    return axes


def _variants(given: Sequence[Mapping[str, Any]], axes: Mapping[str, list[AxisValue]]) -> list[AxisValue]:
    """The recipe as it is, and each variant of it.

    Raises:
        InputError: no name, a name given twice, no key, an unknown key, a key that is an axis.
    """
    if VARIANT in axes:
        raise InputError(f"axes.{VARIANT} and [[{VARIANT}]] are both given; keep one")
    set_by = {key: axis for axis, choices in axes.items() for choice in choices for key in choice.options}
    found = [AxisValue(NOTHING, {})]
    for number, table in enumerate(given, start=1):
        name = table.get("name")
        if not isinstance(name, str) or not name.strip() or name == NOTHING:
            raise InputError(f'[[{VARIANT}]] number {number} needs a name, such as name = "no dropout"')
        options = flat({key: item for key, item in table.items() if key != "name"})
        if not options:
            raise InputError(f"[[{VARIANT}]] {name}: give at least one key that differs from the recipe")
        check_keys(options, f"[[{VARIANT}]] {name}")
        if both := sorted(set(options) & set(set_by)):
            raise InputError(f"[[{VARIANT}]] {name}: {both[0]} is set by axes.{set_by[both[0]]}; keep one")
        if name in (choice.name for choice in found):
            raise InputError(f"[[{VARIANT}]] {name} is given twice; each needs a name of its own")
        found.append(AxisValue(name, options))
    return found


def _typed(name: str, value: Any, kind: type) -> list[Any]:
    parts = words(value) if isinstance(value, str) else value if isinstance(value, (list, tuple)) else [value]
    try:
        return [kind(part) for part in parts or []]
    except ValueError as error:
        raise InputError(f"--{name} {value}: {error}") from error


def _choice(axis: str, value: Any, off: list[str]) -> AxisValue:
    if axis == WITHOUT:
        if value != NOTHING and value not in AUGMENT_PARTS:
            raise InputError(f"axes.{axis}: no part {value!r}; the parts are {NOTHING}, {', '.join(AUGMENT_PARTS)}")
        return AxisValue(value, {"augment.off": off if value == NOTHING else [*off, value]})
    if isinstance(value, Mapping) and axis != "uncertain":
        options = flat({key: item for key, item in value.items() if key != "name"})
        check_keys(options, f"axes.{axis}")
        return AxisValue(value.get("name", ", ".join(f"{k}={v}" for k, v in options.items())), options)
    check_keys([axis], "axes")
    return AxisValue(value, {axis: value})
