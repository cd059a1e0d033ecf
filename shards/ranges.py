"""The range of a setting stands beside it, in its type: `lr: Annotated[float, "(0, inf)"]`.

The text is an interval as in mathematics, [1, 8) holds 1 and not 8, and a bound may be a power, 2^63. It holds for
every number in the value, so that `Annotated[list[float], "(0, 1]"]` is a list of shares; None is always allowed where
the type allows it. No range holds NaN or infinity. A configuration that comes from a command line, a TOML file or
another program is checked by `out_of_range` before anything is started.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

SEEDS = "[0, 2^63)"
"""What a seed may be: results keep it as a 64-bit integer."""

_INTERVAL = re.compile(r"([\[(])([^,]+),([^,]+)([\])])")


@dataclasses.dataclass(frozen=True)
class Interval:
    """An interval of numbers; `text` is how it is written."""

    text: str
    low: float
    high: float
    holds_low: bool
    holds_high: bool

    def __contains__(self, value: float) -> bool:
        if isinstance(value, float) and not math.isfinite(value):  # an integer may be too large to become a float
            return False
        above = self.low < value or (self.holds_low and value == self.low)
        return above and (value < self.high or (self.holds_high and value == self.high))

    def __str__(self) -> str:
        """As the end of a sentence: "at least 1", "above 0", "in (0, 1]"."""
        if self.high == math.inf and self.low > -math.inf:
            return f"{'at least' if self.holds_low else 'above'} {self.low:g}"
        return "a finite number" if self.low == -math.inf and self.high == math.inf else f"in {self.text}"


EVERYWHERE = Interval("(-inf, inf)", -math.inf, math.inf, False, False)
"""What holds for a number without a range: it is finite."""


@functools.cache
def interval(text: str) -> Interval:
    """The interval that `text` writes, e.g. "(0, 1]".

    Raises:
        ValueError: it is none.
    """
    match = _INTERVAL.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not an interval such as [0, 1)")

    def bound(word: str) -> float:
        base, power, exponent = word.strip().partition("^")
        return int(base) ** int(exponent) if power else float(base)

    return Interval(text, bound(match[2]), bound(match[3]), match[1] == "[", match[4] == "]")


@functools.cache
def ranges(kind: type, prefix: str = "") -> dict[str, Interval]:
    """The ranges of a configuration and of its sections by dotted key (`optim.lr`)."""
    found: dict[str, Interval] = {}
    hints = typing.get_type_hints(kind, include_extras=True)
    for name in (field.name for field in dataclasses.fields(kind)):
        hint = hints[name]
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            found |= ranges(hint, f"{prefix}{name}.")
        elif typing.get_origin(hint) is Annotated:
            _, *metadata = typing.get_args(hint)
            found[prefix + name] = interval(next(text for text in metadata if isinstance(text, str)))
    return found


def out_of_range(config: Any) -> str | None:
    """The first number of a configuration that is outside its range, NaN or infinite; None where all are usable.

    Args:
        config: a dataclass; sections are dataclasses inside it.

    Returns:
        the dotted key, its value and what is allowed, for the caller's error.
    """
    known = ranges(type(config))
    for key, value in _settings(config):
        allowed = known.get(key, EVERYWHERE)
        for where, number in _numbers(value, key):
            if number not in allowed:
                return f"{where} = {_short(number)}: must be {allowed}"
    return None


def _settings(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _settings(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, value


def _numbers(value: Any, where: str) -> Iterator[tuple[str, float]]:
    """Every number inside a value, with the place it stands at."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _numbers(item, f"{where}.{key}")
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _numbers(item, where)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield where, value


def _short(number: float) -> str:
    if isinstance(number, int) and abs(number) >= 2**64:  # its digits may fill a screen, or be too many to write
        return f"an integer of {number.bit_length()} bits"
    return str(number)
