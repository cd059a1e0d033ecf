"""Where a shard set is, a local folder or a URL; which one it is, by content; which one a run was made with.

Free of torch.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import results.errors
import shards.errors
from cxrdist.errors import InputError
from results.run import Run
from results.used_datasets import Facts, facts_of, of_info

SCHEME = "://"


def absolute(place: str) -> str:
    """A path made absolute; a URL as it is, and a path that begins with a variable of the node ($SLURM_TMPDIR)."""
    if place.startswith("$"):
        return place
    return place.rstrip("/") if SCHEME in place else os.path.abspath(os.path.expanduser(place))


def card(place: str) -> Any:
    """The card of a shard set. It is read again when the file has changed; behind a URL, after a minute.

    Raises:
        InputError: no shard set there.
        FailedError: its server cannot be reached.
    """
    from shards.format import CARD
    from shards.read.card import local

    folder = local(place)
    if folder is None:
        return _card(place, int(time.monotonic() / _SECONDS))
    try:
        found = os.stat(folder / CARD)
    except OSError:
        return _card.__wrapped__(place)  # says what is wrong
    return _card(place, found.st_mtime_ns, found.st_size, found.st_ino)


_SECONDS = 60


@functools.lru_cache(maxsize=64)
def _card(place: str, *state: int) -> Any:
    from shards import read_card

    del state  # part of the key
    return read_card(place)


def datasets(places: Iterable[str], init: Path | None = None) -> dict[str, Facts]:
    """Whose data lie at places, by content, and whose an encoder was pretrained on, as its own run noted it.

    Args:
        places: shard sets. One that cannot be read is left out: whoever trains on it says why.
        init: the file of the encoder that a run starts from, perhaps in the folder of the run that made it.
    """
    found: dict[str, Facts] = {}
    if init is not None and (run := run_of(init)) is not None:
        with contextlib.suppress(results.errors.InputError):
            found |= of_info(run.read_info())
    for place in places:
        with contextlib.suppress(shards.errors.InputError, shards.errors.FailedError):
            held = card(place)
            found[str(held.sha256)] = facts_of(held)
    return found


def run_of(path: str | os.PathLike[str]) -> Run | None:
    """The run in a folder, or the one that a file lies in; None where there is none."""
    for folder in (Path(path), Path(path).parent):
        if Run(folder).info.is_file():
            return Run(folder)
    return None


def recorded(run: Run | None, place: str) -> str | None:
    """The hash of the shard set that a run found at a place when it was made; None where it used no set there."""
    known = {} if run is None else run.shard_hashes()
    if SCHEME in place or place in known:
        return known.get(place)
    real = os.path.realpath(place)
    return next(
        (content for path, content in known.items() if SCHEME not in path and os.path.realpath(path) == real), None
    )


def expected(run: Run, place: str) -> str | None:
    """The hash of the shard set that a run must find at a place of its configuration.

    The place may be another one than when the run was made, the set may not.

    Raises:
        InputError: a set that the run was not made with, naming the hashes.
    """
    found = recorded(run, place)
    known = run.shard_hashes()
    if found is not None or not known:
        return found
    content = str(card(place).sha256)
    if content not in known.values():
        raise InputError(
            f"{place} holds another shard set than {run.path} was made with: hash {content}, not"
            f" {' or '.join(sorted(set(known.values())))}; put the right one there, or train in a new --out"
        )
    return content
