"""Seeded damage: of bytes, of text, of JSON and TOML values, of command lines. The same seed gives the same damage."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Any

ODD_TEXTS = (
    "", " ", "'", '"', "nan", "inf", "-inf", "-1", "0", "1e999", "9" * 400, "²", "٣", "null", "true", "[]", "{}", "[",
    "..", "/", "~", "--", "=", ",", "\x00", "\ud7ff", "a" * 3000, "%s", "$HOME", "1/0", "0.5.0", "ä", "💀",
)  # fmt: skip
ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 2**63, 10**400, 1.5, float("nan"), float("inf"), "", "x", "²", [], [[]], {}, {"x": 1},
    ["x"],
)  # fmt: skip
ODD_TOML = (
    '"x"', '""', "5", "-1", "nan", "inf", "-inf", "true", "false", "[]", "[1]", '["x"]', "{}", "{ x = 1 }", "1e999",
    "9223372036854775808", "1979-05-27", "[[[]]]", '"²"', "0x10", '"\\u0000"',
)  # fmt: skip


def damaged_bytes(data: bytes, seed: int) -> bytes:
    """One to three of: a flipped bit, a cut end, zeros, foreign bytes in between, a part twice or left out."""
    dice = random.Random(seed)
    for _ in range(dice.randint(1, 3) if seed % 2 else 1):
        at, length = dice.randrange(max(1, len(data))), dice.randint(1, 64)
        kind = dice.randrange(6) if seed % 3 else 0
        if kind == 0 and data:
            data = data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :]
        elif kind == 1:
            data = data[:at]
        elif kind == 2:
            data = data[:at] + bytes(min(length, len(data) - at)) + data[at + length :]
        elif kind == 3:
            data = data[:at] + dice.randbytes(length) + data[at:]
        elif kind == 4:
            data = data[:at] + data[at : at + length] + data[at:]
        else:
            data = data[:at] + data[at + length :]
    return data


def damaged_toml(text: str, seed: int) -> bytes:
    """A value, a key or a line of a TOML file replaced, doubled or left out; now and then its bytes."""
    dice = random.Random(seed)
    lines = text.splitlines()
    at = dice.randrange(len(lines))
    kind = dice.randrange(7)
    if kind <= 2 and "=" in lines[at]:
        lines[at] = f"{lines[at].partition('=')[0]}= {dice.choice(ODD_TOML)}"
    elif kind == 3:
        lines.insert(at, lines[dice.randrange(len(lines))])
    elif kind == 4:
        del lines[at]
    elif kind == 5:
        names = re.findall(r"[a-z_]+", text)
        lines[at] = f"{dice.choice(names)} = {dice.choice(ODD_TOML)}"
    else:
        return damaged_bytes("\n".join(lines).encode(), seed)
    return ("\n".join(lines) + "\n").encode()


def damaged_json(value: Any, seed: int) -> Any:
    """One value somewhere inside replaced by one of another kind, or left out, or another key beside it."""
    dice = random.Random(seed)
    places = list(_places(value, lambda new: new))
    whole, place = places[dice.randrange(len(places))]
    del whole
    return place(dice.choice(ODD_VALUES)) if dice.random() < 0.9 else {"unheard_of": value}


def _places(value: Any, put: Callable[[Any], Any]) -> Any:
    """Every place in a nested value, with a function that gives the whole with another value there."""
    yield value, put
    if isinstance(value, dict):
        for key in value:
            yield from _places(value[key], lambda new, key=key: put({**value, key: new}))
    elif isinstance(value, list):
        for at in range(min(len(value), 8)):
            yield from _places(value[at], lambda new, at=at: put([*value[:at], new, *value[at + 1 :]]))


def damaged_words(words: Sequence[str], seed: int) -> list[str]:
    """One or two words replaced, doubled, left out, exchanged, joined or cut."""
    dice = random.Random(seed)
    words = list(words)
    for _ in range(dice.randint(1, 2)):
        at = dice.randrange(len(words)) if words else 0
        kind = dice.randrange(6)
        if kind <= 1 and words:
            words[at] = dice.choice(ODD_TEXTS)
        elif kind == 2:
            words.insert(at, dice.choice([*words, *ODD_TEXTS]))
        elif kind == 3 and words:
            del words[at]
        elif kind == 4 and words:
            words[at] = words[at] + dice.choice(ODD_TEXTS)
        elif words:
            name, _, _ = words[at].partition("=")
            words[at] = f"{name}={dice.choice(ODD_TEXTS)}"
    return words
