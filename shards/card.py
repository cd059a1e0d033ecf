"""dataset.json, the card of a shard set: written last, so a folder without it is not a shard set."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from shards.errors import InputError

FORMAT_VERSION = 1
CARD = "dataset.json"
INDEX = "index.parquet"
REJECTS = "rejects.parquet"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """What a shard set holds; every field is in dataset.json under the same name."""

    format_version: int
    """Version of this layout."""
    name: str
    """Data set, e.g. "nih"."""
    source: str = ""
    """Whose data they are, e.g. "CheXpert (Irvin et al., AAAI 2019)"."""
    labels: tuple[str, ...]
    """Label names in the order of the index columns `label_NAME`."""
    counts: Mapping[str, Any]
    """Per split: n, patients, and per label the numbers of positive, negative, uncertain and null."""
    image_size: int
    """Shortest side of the stored images, pixels."""
    image_format: str
    """"jpg" or "png": the ending of the image members."""
    mean: float
    """Mean grey value of the train images as stored, in [0, 1], over all pixels (all images where no train split)."""
    std: float
    """Standard deviation of the same, in [0, 1]."""
    split_scheme: str
    """Name of the way samples were put into splits; it travels into every result."""
    split_detail: Mapping[str, Any]
    """What else determines the splits (fraction, seed)."""
    shards: tuple[Mapping[str, Any], ...]
    """Per tar: name, split, n (samples), bytes, sha256; in the order of the index."""
    files: Mapping[str, str]
    """sha256 of the other files (rejects.parquet, boxes.parquet)."""
    index_sha256: str
    """sha256 of index.parquet."""
    n_samples: int
    """Rows of the index."""
    n_rejects: int
    """Rows of rejects.parquet; n_samples + n_rejects is the number of source rows and files."""
    shared_patients: Mapping[str, int]
    """Patients found in two splits, e.g. {"train/test": 170}; empty when none."""
    patients_known: bool
    """False where the source has no patient ids: patient_id is the sample's key then."""
    config: Mapping[str, Any]
    """The conversion settings that determine the bytes."""
    conversion: str
    """Hash of settings and source rows: the same conversion has the same one."""
    licence: str = ""
    """Terms of use of a published data set, as its owners name them."""
    citation: str = ""
    """BibTeX entry of the paper to cite."""
    home: str = ""
    """Web address of the owners' page."""
    studies: int = 0
    """Different examinations; 0 where the source does not say them, and the index has no column study_id."""
    flat_images: int = 0
    """Stored images that are nearly of one grey (`shards.images.is_flat`): black, or badly scaled."""

    @cached_property
    def sha256(self) -> str:
        """Hash (64 hex digits) that identifies the whole set: it covers every tar, the index and the rejects."""
        return hashlib.sha256(card_bytes(self)).hexdigest()

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, alphabetical."""
        return tuple(sorted(self.counts))


_LATER = ("licence", "citation", "home", "studies", "flat_images")
"""Fields that older cards lack; left out where they say nothing, so that older sets keep their hash."""


def card_bytes(card: Card) -> bytes:
    """Return dataset.json of a card: sorted keys, and a check sum of all the rest as its last line but one."""
    fields = {name: value for name, value in dataclasses.asdict(card).items() if value or name not in _LATER}
    body = json.dumps(fields, sort_keys=True, indent=1, ensure_ascii=True)
    check = hashlib.sha256(body.encode()).hexdigest()
    return (body[: -len("\n}")] + f',\n "~sha256": "{check}"\n}}\n').encode()


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
        from shards.stage import fetch_card

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


def parse_card(data: bytes, where: str) -> Card:
    """Return the card held in the bytes of a dataset.json; `where` names it in errors."""
    try:
        fields = json.loads(data)
        version = fields["format_version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{where} is damaged (not a card): convert the data set again") from error
    if version != FORMAT_VERSION:
        raise InputError(f"{where} has format_version {version}, this program reads {FORMAT_VERSION}; convert again")
    fields.pop("~sha256", None)
    names = {field.name for field in dataclasses.fields(Card)}
    if not names.difference(_LATER) <= set(fields) <= names:
        raise InputError(f"{where} is damaged (keys {sorted(set(fields) ^ names)}): convert the data set again")
    try:
        card = Card(**{**fields, "labels": tuple(fields["labels"]), "shards": tuple(fields["shards"])})
        same = card_bytes(card) == data
    except (TypeError, ValueError) as error:
        raise InputError(f"{where} is damaged ({error}): convert the data set again") from error
    if not same:
        raise InputError(f"{where} was edited or damaged: its check sum does not fit; convert the data set again")
    card.__dict__["sha256"] = hashlib.sha256(data).hexdigest()  # known already; the card of a large set is large
    return card


def _why_not(folder: Path) -> str:
    if not folder.exists():
        return "no such folder"
    if not folder.is_dir():
        return "it is a file; give the folder that holds dataset.json"
    if (folder / ".work").is_dir():
        return "its conversion is not finished; run the same `cxrdist shard` command again"
    return f"it holds no {CARD}; `cxrdist shard` makes one"
