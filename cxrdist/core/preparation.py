"""How an image file becomes the pixels that a model knows: by the settings of its training set's conversion.

They are written into the model file, so that `predict` does the same whether that set is still there or not. Free of
torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cxrdist.errors import InputError

KEY = "conversion"
"""Name of the settings among a model file's facts."""

_ALLOWED: dict[str, Any] = {
    "size": range(1, 1 << 16),
    "image_format": ("jpg", "png"),
    "quality": range(1, 101),
    "bits": range(8, 17),
    "dicom_window": ("file", "full", "minmax"),
}
"""The settings that decide the pixels, and what each may be (as in `shards.convert.config`)."""
_MAY_BE_NONE = ("size", "bits")


def settings_of(card: Any) -> dict[str, Any]:
    """The settings on a shard set's card that decide its pixels."""
    return {name: card.config[name] for name in _ALLOWED if name in card.config}


def recorded(facts: Mapping[str, Any], where: Any) -> dict[str, Any] | None:
    """The settings in a model file's facts; None where the file is older than they are.

    Args:
        facts: the file's.
        where: names the file in the error.

    Raises:
        InputError: they cannot be; the file is damaged.
    """
    held = facts.get(KEY)
    if held is None:
        return None
    if not isinstance(held, dict):
        raise InputError(f"{where}: its metadata say {KEY} = {str(held)[:60]!r}; it is damaged: restore it")
    for name, value in held.items():
        known = name in _ALLOWED and not isinstance(value, (bool, float))
        if not known or (value not in _ALLOWED[name] and (value is not None or name not in _MAY_BE_NONE)):
            raise InputError(
                f"{where}: its metadata say {KEY}.{name} = {str(value)[:60]!r}; it is damaged: restore it, or name the"
                " training set with --shards"
            )
    return held
