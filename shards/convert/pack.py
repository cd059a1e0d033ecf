"""The work of one process: a chunk of rows -> encoded images as a piece of a tar; pieces -> one tar.

A tar is the plain concatenation of its members, so chunks are made independently, in any order, and joining them is
a copy. A chunk file holds a JSON header line (what is inside), then the tar bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shards.atomic import write_bytes
from shards.convert.grey import Grey, Unusable, check_shape
from shards.convert.images import decode, encode, fit, grey_sums, is_flat, single_thread
from shards.convert.opener import Opener
from shards.convert.source_stamps import stamp
from shards.errors import FailedError
from shards.format import LABEL

_BLOCK = 512
_TRAILER = bytes(2 * _BLOCK)


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How a source becomes a stored image."""

    size: int | None
    """Shortest side, pixels; None: as in the source."""
    image_format: str
    """jpg or png."""
    quality: int
    """JPEG quality."""
    max_pixels: int
    """Limit of the source."""
    bits: int | None = None
    """Significant bits of 16-bit sources."""
    dicom_window: str = "file"
    """See shards.convert.dicom."""


@dataclass(frozen=True, kw_only=True)
class ChunkJob:
    """Convert `rows` (dicts of the plan's columns) and write the piece to `path`."""

    path: Path
    first_row: int
    rows: Sequence[Mapping[str, Any]]
    opener: Opener
    encoding: Encoding


@dataclass(frozen=True, kw_only=True)
class JoinJob:
    """Join the chunk files, in order, to the tar `tar`, and write what it holds to `sidecar`."""

    chunks: Sequence[Path]
    tar: Path
    sidecar: Path


def member(name: str, data: bytes) -> bytes:
    """Return one tar member (USTAR header, data, padding) without owner or time."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    info.mode = 0o644
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % _BLOCK)


def sample_json(row: Mapping[str, Any], height: int, width: int) -> bytes:
    """Return KEY.json of a sample: its columns, and its labels by name (those not mentioned left out)."""
    labels = {name[len(LABEL) :]: value for name, value in row.items() if name.startswith(LABEL) and value is not None}
    facts = {name: value for name, value in row.items() if not name.startswith(LABEL)}
    facts |= {"height": height, "width": width, "labels": labels}
    return (json.dumps(facts, sort_keys=True) + "\n").encode()


def convert_one(content: Any, encoding: Encoding) -> tuple[bytes, np.ndarray, tuple[int, int]]:
    """Return (encoded image, stored pixels uint8 (h, w), source height and width).

    Raises:
        Unusable: with the reason.
    """
    if isinstance(content, np.ndarray):
        pixels = content if content.ndim == 2 else content[:, :, 0]
        check_shape(*pixels.shape, max_pixels=encoding.max_pixels)
        grey = Grey(pixels, 255)
    else:
        grey = decode(content, max_pixels=encoding.max_pixels, bits=encoding.bits, dicom_window=encoding.dicom_window)
    pixels = fit(grey, encoding.size)
    height, width = grey.pixels.shape
    return encode(pixels, encoding.image_format, encoding.quality), pixels, (height, width)


def run_chunk(job: ChunkJob) -> tuple[Path, int]:
    """Convert one chunk; return its path and the number of rejects in it."""
    single_thread()
    pieces: list[bytes] = []
    done: dict[str, list[int]] = {name: [] for name in ("row", "offset", "size", "height", "width")}
    rejects: list[tuple[int, str]] = []
    mark = stamp(job.opener, [row["source"] for row in job.rows])  # before reading: a later change is then noticed
    position = pixel_sum = square_sum = pixel_count = flat = 0
    for row_number, row in enumerate(job.rows, start=job.first_row):
        try:
            data, pixels, (height, width) = convert_one(job.opener(row["source"]), job.encoding)
        except Unusable as error:
            rejects.append((row_number, str(error)))
            continue
        except OSError as error:
            rejects.append((row_number, f"cannot be read ({error.strerror or error})"))
            continue
        facts = (row_number, position + _BLOCK, len(data), height, width)
        for column, value in zip(done.values(), facts, strict=True):
            column.append(value)
        image = member(f"{row['key']}.{job.encoding.image_format}", data)
        text = member(f"{row['key']}.json", sample_json(row, height, width))
        pieces += [image, text]
        position += len(image) + len(text)
        total, squares = grey_sums(pixels)
        pixel_sum += total
        square_sum += squares
        pixel_count += pixels.size
        flat += is_flat(total, squares, pixels.size)
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    header = {"done": done, "rejects": rejects, "bytes": position, "sha256": digest.hexdigest(), "stamp": mark}
    header |= {"pixel_sum": pixel_sum, "square_sum": square_sum, "pixel_count": pixel_count, "flat": flat}
    write_bytes(job.path, [json.dumps(header).encode() + b"\n", *pieces], durable=False)  # read_chunk checks it
    return job.path, len(rejects)


def read_chunk(path: Path) -> tuple[dict[str, Any], bytes]:
    """Return header and tar bytes of a chunk file.

    Raises:
        FailedError: the file was damaged since it was written.
    """
    data = path.read_bytes()
    line, _, body = data.partition(b"\n")
    try:
        header = json.loads(line)
        whole = header["bytes"] == len(body) and header["sha256"] == hashlib.sha256(body).hexdigest()
    except (ValueError, KeyError, TypeError):
        header, whole = {}, False
    if not whole:
        path.unlink(missing_ok=True)
        raise FailedError(f"{path} was damaged on the disk and is removed; run the same command again to remake it")
    return header, body


def chunk_header(path: Path) -> dict[str, Any] | None:
    """Return the header of a finished chunk; None where there is no such file, or one cut off by a power failure."""
    try:
        with open(path, "rb") as file:
            line = file.readline()
            header = json.loads(line)
            return header if os.fstat(file.fileno()).st_size == len(line) + header["bytes"] else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def run_join(job: JoinJob) -> dict[str, Any]:
    """Join chunks to one tar; return what it holds (also written to the sidecar).

    A tar without any sample is not written. The sidecar comes last, so a tar with a sidecar is complete.
    """
    digest = hashlib.sha256()
    facts: dict[str, Any] = {
        "done": {},
        "rejects": [],
        "stamps": [],
        "bytes": 0,
        "pixel_sum": 0,
        "square_sum": 0,
        "pixel_count": 0,
        "flat": 0,
    }

    def pieces() -> Iterator[bytes]:
        position = 0
        for path in job.chunks:
            header, body = read_chunk(path)
            header["done"]["offset"] = [offset + position for offset in header["done"]["offset"]]
            for name, values in header["done"].items():
                facts["done"].setdefault(name, []).extend(values)
            facts["rejects"] += header["rejects"]
            facts["stamps"].append(header["stamp"])
            for name in ("pixel_sum", "square_sum", "pixel_count", "flat"):
                facts[name] += header.get(name, 0)
            position += len(body)
            digest.update(body)
            yield body
        end = _TRAILER + bytes(-(position + len(_TRAILER)) % tarfile.RECORDSIZE)
        digest.update(end)
        facts["bytes"] = position + len(end)
        yield end

    if any(json.loads(_first_line(path))["bytes"] for path in job.chunks):
        write_bytes(job.tar, pieces(), temporary_in=job.sidecar.parent)
    else:
        for _ in pieces():
            pass
        facts["bytes"] = 0
    facts["sha256"] = digest.hexdigest()
    facts["n"] = len(facts["done"].get("row", []))
    write_bytes(job.sidecar, [json.dumps(facts).encode()])
    for path in job.chunks:
        path.unlink(missing_ok=True)
    return {"n": facts["n"], "rejects": len(facts["rejects"])}


def _first_line(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.readline()


def members(data: bytes) -> Iterator[tuple[str, int, int]]:
    """Yield (name, offset, size) of the members of a tar held in memory."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for info in tar:
            yield info.name, info.offset_data, info.size
