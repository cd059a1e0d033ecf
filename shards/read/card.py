"""The card of a shard set from where it lies: a folder, or an address."""

from __future__ import annotations

import os
from pathlib import Path

from shards.errors import InputError
from shards.format import CARD, Card, parse_card
from shards.read.transfer import Remote, Source


def read_card(path: str | os.PathLike[str]) -> Card:
    """Read and check the card of a shard set; nothing else of it is read or fetched.

    Args:
        path: the folder that holds dataset.json, or its URL (file, http, https, s3: anything fsspec knows).

    Raises:
        InputError: no card there, made by a newer version, damaged or edited.
        FailedError: the server could not be reached in three tries.
    """
    folder = local(path)
    if folder is None:
        return fetch_card(os.fspath(path))[0]
    file = folder / CARD
    try:
        data = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{path} is not a shard set: {_why_not(folder)}") from error
    return parse_card(data, str(file))


def local(path: str | os.PathLike) -> Path | None:
    """The folder that a path or an address on this machine means; None for an address elsewhere."""
    text = os.fspath(path)
    if text.startswith(("file://", "local://")):
        text = text.split("://", 1)[1]
    return None if "://" in text else Path(text)


def check_content(card: Card, expected: str | None, where: str | os.PathLike[str]) -> None:
    """Refuse a shard set that is not the expected one; None expects nothing.

    Raises:
        InputError: naming both hashes.
    """
    if expected is not None and card.sha256 != expected:
        raise InputError(
            f"{where} holds another shard set than the run was made with: {card.name}, hash {card.sha256}, not "
            f"{expected}; put that one back there, or give this one a path of its own (to train on it: in a new --out)"
        )


def fetch_card(address: str) -> tuple[Card, bytes]:
    """The card of a shard set behind an address, and its bytes.

    Raises:
        InputError: no card there, or one that cannot be used.
        FailedError: the source could not be read after three tries.
    """
    return card_of(Remote(address), address)


def card_of(source: Source, where: str) -> tuple[Card, bytes]:
    """The card that a source holds, and its bytes; `where` names it in errors."""
    data = source.read(CARD)
    return parse_card(data, f"{where.rstrip('/')}/{CARD}"), data


def _why_not(folder: Path) -> str:
    if not folder.exists():
        return "no such folder"
    if not folder.is_dir():
        return "it is a file; give the folder that holds dataset.json"
    if (folder / ".work").is_dir():
        return "its conversion is not finished; run the same `cxrdist shard` command again"
    return f"it holds no {CARD}; `cxrdist shard` makes one"
