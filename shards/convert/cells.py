"""What the cells of published tables mean: blanks, labels, patients, views, sexes, ages, lists of findings."""

from __future__ import annotations

import ast
import re

BLANKS = frozenset({"", "nan", "none", "na", "n/a", "<na>", "null"})
"""What stands in a cell without a value, in lower case."""
OLDEST = 120.0
"""Ages above this many years (411 occurs in NIH's table) are typing errors and become null."""

_WORDS = {"yes": 1, "y": 1, "true": 1, "positive": 1, "no": 0, "n": 0, "false": 0, "negative": 0, "uncertain": -1}
_NUMBER = re.compile(r"([+-]?[01])(?:\.0*)?")
_VIEWS = {"PA": "PA", "AP": "AP", "LATERAL": "LATERAL", "LAT": "LATERAL", "LL": "LATERAL", "L": "LATERAL"}
_SEXES = {"M": "M", "MALE": "M", "F": "F", "FEMALE": "F"}
_WHOLE = re.compile(r"(-?\d+)\.0+")
_AGE = re.compile(r"(\d+(?:\.\d*)?)\s*([YMWD]?)", re.IGNORECASE)
_YEARS = {"": 1.0, "Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}


def blank(text: str) -> bool:
    """Return whether a cell holds no value."""
    return text.strip().lower() in BLANKS


def label(text: str) -> int | None:
    """Return 1, 0, -1 (uncertain) or None (blank) of a label cell: 1, 1.0, 1.00, yes, true, positive, ...

    Raises:
        ValueError: the cell is anything else.
    """
    plain = text.strip().lower()
    if plain in BLANKS:
        return None
    if plain in _WORDS:
        return _WORDS[plain]
    match = _NUMBER.fullmatch(plain)
    if match is None:
        raise ValueError(text)
    return int(match[1])


def patient(text: str) -> str | None:
    """Return a patient id, None where blank; 1.0, as a column of numbers with blanks is often written, is 1."""
    plain = text.strip()
    if blank(plain):
        return None
    whole = _WHOLE.fullmatch(plain)
    return whole[1] if whole else plain


def view(text: str) -> str | None:
    """Return PA, AP, LATERAL or None (blank or another view)."""
    return _VIEWS.get(text.strip().upper())


def sex(text: str) -> str | None:
    """Return M, F or None."""
    return _SEXES.get(text.strip().upper())


def age(text: str) -> float | None:
    """Return an age in years from 58, 58.5, 058Y, 060M (months), 003W or 001D; None for anything else or above 120."""
    match = _AGE.fullmatch(text.strip())
    if match is None:
        return None
    years = float(match[1]) * _YEARS[match[2].upper()]
    return years if years <= OLDEST else None


def parts(text: str, separator: str) -> list[str]:
    """Return the findings of a cell: joined by a separator, or a list as Python writes it, ['a', 'b'].

    Blank entries are left out.

    Raises:
        ValueError: the cell begins like a list but is not one.
    """
    plain = text.strip()
    if plain.startswith("["):
        try:
            found = ast.literal_eval(plain)
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            raise ValueError(f"{plain!r} is not a list of findings") from error
        entries = [str(entry) for entry in found]
    else:
        entries = plain.split(separator)
    return [entry.strip() for entry in entries if not blank(entry)]
