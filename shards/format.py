"""The format of a shard set on disk: its files, dataset.json (the card), and the columns of its Parquet files.

    NAME-00000.tar ...   images, grouped by split
    index.parquet        one row per sample (`index_schema`)
    rejects.parquet      what was left out and why (`reject_schema`)
    boxes.parquet        boxes, where the source has some (`box_schema`)
    dataset.json         the card, written last: a folder without it is not a shard set

Free of pyarrow until a schema is asked for.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shards.card_shape import misshapen
from shards.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT_VERSION = 1
CARD = "dataset.json"
INDEX = "index.parquet"
REJECTS = "rejects.parquet"
SPLITS = ("train", "val", "test")
VIEWS = ("PA", "AP", "LATERAL")
SEXES = ("M", "F")
LABEL = "label_"
"""Label columns of the index begin with it."""
STUDY = "study_id"
"""Column of the examination; sets whose source has none lack it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """What a shard set holds; every field is in dataset.json under the same name."""

    format_version: int
    """Version of this layout."""
    name: str
    """Dataset, e.g. "nih"."""
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
    """Terms of use of a published dataset, as its owners name them."""
    citation: str = ""
    """BibTeX entry of the paper to cite."""
    home: str = ""
    """Web address of the owners' page."""
    studies: int = 0
    """Different examinations; 0 where the source does not say them, and the index has no column study_id."""
    flat_images: int = 0
    """Stored images that are nearly of one grey (`shards.convert.images.is_flat`): black, or badly scaled."""

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
    """Return dataset.json of a card: sorted keys, and a checksum of all the rest as its last line but one."""
    fields = {name: value for name, value in dataclasses.asdict(card).items() if value or name not in _LATER}
    body = json.dumps(fields, sort_keys=True, indent=1, ensure_ascii=True)
    check = hashlib.sha256(body.encode()).hexdigest()
    return (body[: -len("\n}")] + f',\n "~sha256": "{check}"\n}}\n').encode()


def parse_card(data: bytes, where: str) -> Card:
    """Return the card held in the bytes of a dataset.json; `where` names it in errors."""
    try:
        fields = json.loads(data)
        version = fields["format_version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{where} is damaged (not a card): convert the dataset again") from error
    if version != FORMAT_VERSION:
        raise InputError(f"{where} has format_version {version}, this program reads {FORMAT_VERSION}; convert again")
    fields.pop("~sha256", None)
    kinds = {field.name: str(field.type) for field in dataclasses.fields(Card)}
    names = set(kinds)
    if not names.difference(_LATER) <= set(fields) <= names:
        raise InputError(f"{where} is damaged (keys {sorted(set(fields) ^ names)}): convert the dataset again")
    if wrong := misshapen(fields, kinds):
        raise InputError(f"{where} is damaged ({wrong} = {str(fields[wrong])[:60]!r}): convert the dataset again")
    try:
        json.dumps(fields, ensure_ascii=False).encode()  # half of a surrogate pair cannot be written anywhere else
        card = Card(**{**fields, "labels": tuple(fields["labels"]), "shards": tuple(fields["shards"])})
        same = card_bytes(card) == data
    except (TypeError, ValueError) as error:
        raise InputError(f"{where} is damaged ({error}): convert the dataset again") from error
    if not same:
        raise InputError(f"{where} was edited or damaged: its checksum does not match; convert the dataset again")
    card.__dict__["sha256"] = hashlib.sha256(data).hexdigest()  # known already; the card of a large set is large
    return card


def index_schema(labels: Sequence[str], *, studies: bool) -> pa.Schema:
    """Return the columns of index.parquet, in order; `studies`: the source says which study an image is of."""
    import pyarrow as pa

    fixed = [
        ("key", pa.string()),
        ("split", pa.string()),
        ("patient_id", pa.string()),
        *([(STUDY, pa.string())] if studies else []),
        ("shard", pa.string()),
        ("offset", pa.int64()),
        ("size", pa.int32()),
        ("view", pa.string()),
        ("sex", pa.string()),
        ("age", pa.float32()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("source", pa.string()),
    ]
    return pa.schema(fixed + [(LABEL + label, pa.int8()) for label in labels])


def reject_schema() -> pa.Schema:
    """Return the columns of rejects.parquet: the source row or file, and why it was left out."""
    import pyarrow as pa

    return pa.schema([("source", pa.string()), ("reason", pa.string())])


def box_schema() -> pa.Schema:
    """Return the columns of boxes.parquet: left, top, width and height in pixels of the published image."""
    import pyarrow as pa

    numbers = [(name, pa.float64()) for name in ("x", "y", "width", "height")]
    return pa.schema([("key", pa.string()), ("label", pa.string()), *numbers])


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
