"""What the headers of DICOM files say of patient, study, view, sex and age, read for many files at once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from tqdm import tqdm

from shards.convert import cells
from shards.convert.dicom import looks_like_dicom, read_header
from shards.convert.grey import plain_reason
from shards.convert.inputs import note
from shards.convert.rows import with_column

_TAGS = ("PatientID", "StudyInstanceUID", "SOPInstanceUID", "ViewPosition", "PatientSex", "PatientAge", "Rows")
_HEAD = 1 << 16
"""Bytes read first; headers longer than this are read from the whole file."""
_THREADS = 16


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


def read_headers(root: Path, sources: Sequence[str]) -> list[Header | str]:
    """Return the header of every file, or why it cannot be read, in the order of `sources`.

    Waiting for the file system takes most of the time, so several files are read at once.
    """
    from pydicom import config

    for source in sources:
        note(root / source)
    kept = config.settings.reading_validation_mode
    config.settings.reading_validation_mode = config.IGNORE  # an age written "51" is read, and not worth a warning
    try:
        with ThreadPoolExecutor(_THREADS) as pool:
            found = pool.map(lambda source: _read(root / source), sources)
            return list(tqdm(found, "reading headers", len(sources), unit="file", disable=None, leave=False))
    finally:
        config.settings.reading_validation_mode = kept


def with_headers(rows: pa.Table, root: Path, names: Sequence[str]) -> pa.Table:
    """Return rows with the named columns from the headers of their files; those that cannot be read get null."""
    headers = [
        found if isinstance(found, Header) else Header() for found in read_headers(root, rows["source"].to_pylist())
    ]
    for name in names:
        values = pa.array([getattr(header, name) for header in headers], rows.schema.field(name).type)
        rows = with_column(rows, name, values)
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
