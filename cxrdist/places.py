"""Where a shard set is: a local folder or a URL, and its card. Free of torch."""

from __future__ import annotations

import functools
import os
from typing import Any

from cxrdist.errors import InputError

SCHEME = "://"


def absolute(place: str) -> str:
    """A path made absolute; a URL as it is."""
    return place.rstrip("/") if SCHEME in place else os.path.abspath(os.path.expanduser(place))


@functools.lru_cache(maxsize=64)
def card(place: str) -> Any:
    """The card of a shard set, read once a process; of one behind a URL nothing else is fetched.

    Raises:
        InputError: no shard set there, or it cannot be reached.
    """
    from shards import read_card

    return _far(place) if SCHEME in place else read_card(place)


def _far(place: str) -> Any:
    from shards.card import CARD, parse_card

    where = f"{place.rstrip('/')}/{CARD}"
    try:
        import fsspec

        with fsspec.open(where, "rb") as file:
            data = file.read()  # pyright: ignore[reportAttributeAccessIssue]
    except Exception as error:  # each of fsspec's backends has its own family of errors
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise InputError(f"{where} cannot be read ({reason}); is this the address of a shard set's folder?") from None
    return parse_card(data, where)
