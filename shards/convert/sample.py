"""One image of a source before its conversion, and the key it gets."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

_LONGEST_KEY = 80
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One image of the source, before conversion."""

    source: str
    """Path relative to the source root, or another name that the opener understands; unique."""
    key: str
    """Wanted name of the sample; made safe, and checked for uniqueness by `shards.convert.plan.build`."""
    split: str
    """train, val or test."""
    patient_id: str | None = None
    """Patient; None: unknown, the key stands in."""
    study_id: str | None = None
    """Examination that the image belongs to, unique over the patients; None: unknown."""
    labels: Mapping[str, int | None] = field(default_factory=dict)
    """Label name -> 1, 0, -1 or None (not mentioned); names left out are None."""
    view: str | None = None
    """PA, AP, LATERAL or None."""
    sex: str | None = None
    """M, F or None."""
    age: float | None = None
    """Years or None."""
    beside: Mapping[str, str | None] = field(default_factory=dict)
    """Name -> text that the converter needs and the set does not keep, e.g. who read the image."""


def safe_key(name: str) -> str:
    """Return a key that every tar reader takes: A-Z a-z 0-9 _ - only, at most 80 characters.

    A name that had to be changed gets 8 hex digits of its sha256 at the end, so that two names never become one.
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = _UNSAFE.sub("-", plain).strip("-")
    if plain == name and 0 < len(plain) <= _LONGEST_KEY:
        return plain
    mark = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{plain[: _LONGEST_KEY - 9]}-{mark}".lstrip("-")


def printable(name: str) -> str:
    """Return a name as valid text: bytes of a file name that are not UTF-8 are written as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()
