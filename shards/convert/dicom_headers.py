"""What the headers of DICOM files say of patient, study, view, sex and age, read for many files at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from shards.convert import cells
from shards.convert.dicom import looks_like_dicom, read_header
from shards.convert.grey import plain_reason
from shards.convert.inputs import note
from shards.convert.rows import with_column
from shards.convert.spill import stored
from shards.progress import Progress

_TAGS = ("PatientID", "StudyInstanceUID", "SOPInstanceUID", "ViewPosition", "PatientSex", "PatientAge", "Rows")
_HEAD = 1 << 16
"""Bytes read first; headers longer than this are read from the whole file."""
_THREADS = 16
_BATCH = 1 << 12


@dataclass(frozen=True, kw_only=True)
class Header:
    """Facts of one file; None where it does not say them."""

    patient_id: str | None = None
    study_id: str | None = None
    instance: str | None = None
    """SOPInstanceUID."""
    view: str | None = None
    sex: str | None = None
    age: float | None = None
    image: bool = False
    """Whether it holds an image at all (reports and directories do not)."""


def read_headers(root: Path, sources: pa.ChunkedArray) -> Iterator[tuple[str, Header | str]]:
    """Yield every file and its header, or why it cannot be read, in the order of `sources`.

    Waiting for the file system takes most of the time, so several files are read at once; a few thousand headers at a
    time are in memory.
    """
    from pydicom import config

    kept = config.settings.reading_validation_mode
    config.settings.reading_validation_mode = config.IGNORE  # an age written "51" is read, and not worth a warning
    try:
        with (
            ThreadPoolExecutor(_THREADS) as pool,
            Progress(len(sources), "headers read:", unit="file", leave=False) as bar,
        ):
            for first in range(0, len(sources), _BATCH):
                some = sources.slice(first, _BATCH).to_pylist()
                for source in some:
                    note(root / source)
                yield from zip(some, pool.map(lambda source: _read(root / source), some), strict=True)
                bar.add(len(some))
    finally:
        config.settings.reading_validation_mode = kept


def with_headers(rows: pa.Table, root: Path, names: Sequence[str]) -> pa.Table:
    """Return rows with the named columns from the headers of their files; those that cannot be read get null."""
    columns = pa.schema([rows.schema.field(name) for name in names])

    def batches() -> Iterator[pa.RecordBatch]:
        headers = (found if isinstance(found, Header) else Header() for _, found in read_headers(root, rows["source"]))
        while some := list(islice(headers, _BATCH)):
            values = [[getattr(header, name) for header in some] for name in names]
            arrays = [pa.array(column, field.type) for column, field in zip(values, columns, strict=True)]
            yield pa.record_batch(arrays, schema=columns)

    read = stored(batches(), columns)
    for name in names:
        rows = with_column(rows, name, read[name])
    return rows


def _read(path: Path) -> Header | str:
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
            if not looks_like_dicom(head[:132]):
                return "not a DICOM file"
            try:
                dataset = _parse(head)
            except Exception:  # cut off in the middle of an element: its header is longer
                dataset = _parse(head + file.read())
    except Exception as error:  # damaged files make the parser raise nearly anything
        return f"damaged DICOM header ({plain_reason(error)})"
    return Header(
        patient_id=cells.patient(str(dataset.get("PatientID", "") or "")),
        study_id=str(dataset.get("StudyInstanceUID", "") or "") or None,
        instance=str(dataset.get("SOPInstanceUID", "") or "") or None,
        view=cells.view(str(dataset.get("ViewPosition", "") or "")),
        sex=cells.sex(str(dataset.get("PatientSex", "") or "")),
        age=cells.age(str(dataset.get("PatientAge", "") or "")),
        image="Rows" in dataset,
    )


def _parse(data: bytes) -> Any:
    return read_header(data, stop_before_pixels=True, specific_tags=list(_TAGS))
