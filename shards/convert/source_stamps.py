"""Whether sources are still the files they were when they were converted: by size and time, never by their bytes.

Each chunk of a conversion keeps a hash of the stamps of its files, so that a resumed conversion makes again what has
changed. A finished set keeps none (a copied source has other times, and the same source must give the same bytes):
there the files are compared with the time of its card.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from shards.convert.opener import Opener
from shards.errors import InputError

if TYPE_CHECKING:
    from shards.convert.plan import Plan
    from shards.convert.tar_layout import Shard

_AT_ONCE = 16
"""Threads that ask a (network) file system for sizes and times."""
_ROWS = 1024

Stamped = tuple[int, int, str | None]
"""First and last row (excluded) of a chunk, and the hash noted for it."""


def stamp(opener: Opener, sources: Iterable[str]) -> str:
    """Return a hash (16 hex digits) of the stamps of some sources."""
    digest = hashlib.blake2b(digest_size=8)
    for source in sources:
        digest.update(struct.pack("<qqq", *opener.stamp(source)))
    return digest.hexdigest()


def of_tar(shard: Shard, stamps: Sequence[str]) -> list[Stamped]:
    """Return the chunks of a tar with the hashes noted for them, None where they are not."""
    bounds = [(first, last) for _, first, last in shard.chunks()]
    known = list(stamps) if len(stamps) == len(bounds) else [None] * len(bounds)
    return [(first, last, mark) for (first, last), mark in zip(bounds, known, strict=True)]


def changed(plan: Plan, chunks: Sequence[Stamped]) -> list[bool]:
    """Return for each chunk whether a source of it is another file by now."""

    def differs(chunk: Stamped) -> bool:
        return chunk[2] != stamp(plan.opener, _sources(plan, chunk[0], chunk[1]))

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(differs, chunks))


def _sources(plan: Plan, first: int, last: int) -> list[str]:
    return plan.rows(first, last)["source"].to_pylist()


def check_unchanged(plan: Plan, card: Path, say: Callable[[str], None]) -> None:
    """Compare the sources of a finished set with the time of its card.

    A file whose content has a later time is an error; one that was only replaced, linked or given other permissions
    since is a warning, since that rarely changes the images.

    Raises:
        InputError: a source changed after the set was made; the set is left as it is.
    """
    made, out = card.stat().st_mtime_ns, card.parent

    def later(first: int) -> list[tuple[int, int, str]]:
        found = [(*plan.opener.stamp(source), source) for source in _sources(plan, first, first + _ROWS)]
        return [(content, file, source) for _, content, file, source in found if max(content, file) > made]

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        late = [entry for found in pool.map(later, range(0, plan.table.num_rows, _ROWS)) for entry in found]
    edited = [(content, source) for content, _, source in late if content > made]
    if edited:
        raise InputError(
            f"{out} is complete, but {len(edited)} of its {plan.table.num_rows} sources changed since it was made "
            f"(last: {max(edited)[1]}); remove {out} and convert again, or choose another --out "
            f"(only their times are new? then: touch {card})"
        )
    if late:
        last = max((file, source) for _, file, source in late)[1]
        say(
            f"WARNING: {len(late)} sources were replaced or given other permissions since {out} was made "
            f"(last: {last}); if their images changed, remove {out} and convert again"
        )
