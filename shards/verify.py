"""Proves a shard set whole: hashes, counts, byte ranges, decodable images, patients in one split only."""

from __future__ import annotations

import os
import tarfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from shards import parquet
from shards.convert.grey import Unusable
from shards.convert.images import decode, flat_warning, grey_sums, is_flat
from shards.convert.plan import shared_patients
from shards.errors import InputError
from shards.format import CARD, INDEX, LABEL, REJECTS, Card, file_sha256, index_schema
from shards.parquet import short
from shards.processes import cores, run_jobs
from shards.progress import Progress
from shards.read.card import read_card

pc: Any = pyarrow.compute  # its functions are made at import, unseen by type checkers

MOST_PER_TAR = 3
"""Problems printed per tar; the rest is counted."""


@dataclass(frozen=True, kw_only=True)
class TarJob:
    """Check one tar against the card and its rows of the index."""

    path: Path
    facts: Mapping[str, Any]
    keys: Sequence[str]
    offsets: Sequence[int]
    sizes: Sequence[int]
    image_format: str
    decode: bool


def verify(
    path: str | Path,
    *,
    decode_images: bool = True,
    workers: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[str]:
    """Return what is wrong with a shard set, one line per problem; an empty list means it is whole.

    Args:
        path: the local folder of the set.
        decode_images: decode every image, not only compare hashes.
        workers: processes; None: one per core.
        say: takes progress lines and warnings.

    Raises:
        InputError: there is no shard set (or its card is damaged).
    """
    root = Path(path)
    card = read_card(root)
    problems = _files(root, card)
    try:
        index = parquet.read_table(root / INDEX)
    except InputError as error:
        return [*problems, f"{INDEX} cannot be read ({error})"]
    schema = index_schema(card.labels, studies=card.studies > 0)
    if index.schema.names != schema.names:
        return [*problems, f"{INDEX} has columns {', '.join(index.schema.names)}, not those of the card"]
    if unusable := _columns(index, schema):
        return problems + unusable
    problems += _counts(root, card, index, say)
    jobs = [job for facts in card.shards if (job := _job(root, card, index, facts, decode_images)) is not None]
    by_name: dict[str, list[str]] = {}
    flat_images = 0
    with Progress(sum(len(job.keys) for job in jobs), "verified", say) as progress:
        wanted = min(workers or cores(), max(1, len(jobs)))
        for job, (found, flat) in run_jobs([(check_tar, job) for job in jobs], wanted):
            by_name[job.path.name] = found
            flat_images += flat
            progress.add(len(job.keys))
    for line in flat_warning(flat_images, card.n_samples):
        say(line)
    return problems + [line for name in sorted(by_name) for line in by_name[name]]


def _files(root: Path, card: Card) -> list[str]:
    """Check which files are there, and the hashes of all but the tars."""
    problems = []
    known = {CARD, INDEX, *card.files, *(facts["name"] for facts in card.shards)}
    for name in sorted(known):
        if not (root / name).is_file():
            problems.append(f"{name} is missing")
    for entry in sorted(root.iterdir()):
        if entry.name not in known and entry.suffix in (".tar", ".parquet"):
            problems.append(f"{entry.name} does not belong to the set")
    for name, wanted in {INDEX: card.index_sha256, **card.files}.items():
        if (root / name).is_file() and file_sha256(root / name) != wanted:
            problems.append(f"{name} was changed or damaged (sha256 differs from {CARD})")
    return problems


def _columns(index: pa.Table, schema: pa.Schema) -> list[str]:
    """Columns that nothing more can be said of: they hold another kind of values, or none where there must be one."""
    problems = []
    for field in schema:
        found = index.schema.field(field.name).type
        if not any(kind(found) and kind(field.type) for kind in (_is_text, pa.types.is_integer, pa.types.is_floating)):
            problems.append(f"{INDEX}: column {field.name} holds {found}, not {field.type}")
        elif field.name in NEEDED and (empty := index[field.name].null_count):
            problems.append(f"{INDEX}: column {field.name} has {empty} empty values")
    return problems


NEEDED = ("key", "split", "shard", "offset", "size")
"""Columns of the index in which every sample has a value."""


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _counts(root: Path, card: Card, index: pa.Table, say: Callable[[str], None]) -> list[str]:
    problems = []
    if index.num_rows != card.n_samples:
        problems.append(f"{INDEX} has {index.num_rows} rows, {CARD} says {card.n_samples}")
    if sum(facts["n"] for facts in card.shards) != card.n_samples:
        problems.append(f"{CARD}: its tars hold {sum(f['n'] for f in card.shards)} samples, not {card.n_samples}")
    try:
        rejects = parquet.read_table(root / REJECTS).num_rows
        if rejects != card.n_rejects:
            problems.append(f"{REJECTS} has {rejects} rows, {CARD} says {card.n_rejects}")
    except InputError as error:
        problems.append(f"{REJECTS} cannot be read ({error})")
    twice = index.num_rows - pc.count_distinct(index["key"]).as_py()
    if twice:
        problems.append(f"{INDEX}: {twice} keys occur more than once")
    for split, wanted in card.counts.items():
        found = index.filter(pc.equal(index["split"], split))
        if found.num_rows != wanted["n"]:
            problems.append(f"split {split} has {found.num_rows} rows, {CARD} says {wanted['n']}")
        for label, numbers in wanted["labels"].items():
            problems += _label(split, label, found[LABEL + label], numbers)
    extra = set(pc.unique(index["split"]).to_pylist()) - set(card.counts)
    problems += [f"{INDEX} has a split {name} that {CARD} does not know" for name in sorted(extra)]
    if card.patients_known:
        problems += _patients(card, index, say)
    return problems


def _label(split: str, label: str, values: pa.ChunkedArray, wanted: Mapping[str, int]) -> list[str]:
    counted = {entry["values"]: entry["counts"] for entry in pc.value_counts(values).to_pylist()}
    kinds = {"positive": 1, "negative": 0, "uncertain": -1, "null": None}
    problems = [
        f"split {split}, label {label}: {counted.get(value, 0)} {kind}, {CARD} says {wanted[kind]}"
        for kind, value in kinds.items()
        if counted.get(value, 0) != wanted[kind]
    ]
    odd = sorted(value for value in counted if value not in kinds.values())
    return problems + ([f"split {split}, label {label} holds the values {odd}"] if odd else [])


def _patients(card: Card, index: pa.Table, say: Callable[[str], None]) -> list[str]:
    """A patient in two splits is a problem unless the card says so; then it is only said again."""
    found = shared_patients(index)
    problems = []
    for pair in sorted({*found, *card.shared_patients}):
        count, recorded = found.get(pair, 0), card.shared_patients.get(pair, 0)
        text = f"{count} patients are in both {pair.replace('/', ' and ')}"
        if count == recorded:
            say(f"WARNING: {text}, as the card says: results on split scheme {card.split_scheme} are optimistic")
        else:
            problems.append(f"{text}, the card says {recorded}")
    return problems


def _job(root: Path, card: Card, index: pa.Table, facts: Mapping[str, Any], decode_images: bool) -> TarJob | None:
    if not (root / facts["name"]).is_file():
        return None
    rows = index.filter(pc.equal(index["shard"], facts["name"]))
    return TarJob(
        path=root / facts["name"],
        facts=facts,
        keys=rows["key"].to_pylist(),
        offsets=rows["offset"].to_pylist(),
        sizes=rows["size"].to_pylist(),
        image_format=card.image_format,
        decode=decode_images,
    )


def check_tar(job: TarJob) -> tuple[list[str], int]:
    """Return the problems of one tar, and how many of its images are nearly of one grey."""
    name = job.path.name
    problems: list[str] = []
    if file_sha256(job.path) != job.facts["sha256"]:
        problems.append(f"{name} was changed or damaged (sha256 differs from {CARD})")
    if len(job.keys) != job.facts["n"]:
        problems.append(f"{name}: {len(job.keys)} rows in {INDEX}, {CARD} says {job.facts['n']}")
    try:
        with tarfile.open(job.path) as tar:
            found = {info.name: (info.offset_data, info.size) for info in tar}
    except tarfile.TarError as error:
        return [*problems, f"{name} is not a whole tar ({short(error)})"], 0
    wanted = Counter(f"{key}.{ending}" for key in job.keys for ending in (job.image_format, "json"))
    lost, extra = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    if lost or extra:
        first = (lost or extra)[0]
        problems.append(f"{name}: {len(lost)} members missing, {len(extra)} unknown (first: {first})")
    details, flat = [], 0
    with open(job.path, "rb") as file:
        for key, offset, size in zip(job.keys, job.offsets, job.sizes, strict=True):
            member = f"{key}.{job.image_format}"
            if member in found and found[member] != (offset, size):
                details.append(f"{name}: {member} lies at {found[member]}, {INDEX} says {(offset, size)}")
            elif job.decode:
                reason, dull = _look(os.pread(file.fileno(), size, offset))
                details += [f"{name}: {member}: {reason}"] if reason else []
                flat += dull
    more = [f"{name}: and {len(details) - MOST_PER_TAR} more images"] if len(details) > MOST_PER_TAR else []
    return problems + details[:MOST_PER_TAR] + more, flat


def _look(data: bytes) -> tuple[str, bool]:
    """Return why an image cannot be used ("" where it can), and whether it is nearly of one grey."""
    try:
        pixels = decode(data, max_pixels=1 << 30).pixels
    except Unusable as error:
        return str(error), False
    if pixels.dtype != np.uint8:
        return f"{pixels.dtype} pixels, 8 bits are expected", False
    return "", is_flat(*grey_sums(pixels), pixels.size)


def need_set(path: str) -> Path:
    """Return the folder of a shard set given on the command line.

    Raises:
        InputError: an address instead of a folder.
    """
    if "://" in path:
        raise InputError(f"{path}: verify works on a local folder; fetch the set first")
    return Path(path)
