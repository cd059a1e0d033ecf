"""A folder of DICOM files as a dataset of its own: patients and studies from the headers, labels from a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute

from shards import labels as names
from shards.convert import cells
from shards.convert.config import DrawnSplits, path_field
from shards.convert.delimited import read_table
from shards.convert.dicom import looks_like_dicom, require
from shards.convert.dicom_headers import Header, read_headers
from shards.convert.opener import FileOpener
from shards.convert.plan import Plan, build
from shards.convert.rows import Gathered, gather, left_out, split_off
from shards.convert.sample import Sample
from shards.convert.side_table import Entry, SideTable, labels_schema, side_table
from shards.convert.sources import folder, list_files
from shards.convert.splits import with_drawn_splits
from shards.errors import InputError
from shards.format import LABEL

pc: Any = pyarrow.compute  # its functions are made at import, unseen by type checkers

MATCH = "match"
"""Column beside the samples: what the table of labels may call them by."""
UNWANTED = "unwanted"
"""Column beside the samples: why a file is left out."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(DrawnSplits):
    """DICOM files of any name below a folder, as a scanner or an archive exports them."""

    name: str = "dicom"
    """Name of the dataset in the card and in every result."""
    table: str | None = path_field()
    """CSV of labels; None: none, as pretraining needs none. Every column whose heading is a known label is read."""
    match: Literal["SOPInstanceUID", "StudyInstanceUID", "file"] = "SOPInstanceUID"
    """What the table's column of the same name holds: the image's or the study's UID, or the path below src."""
    views: Literal["frontal", "all"] = "all"
    """all, or only images whose header says PA or AP."""
    dicom_window: Literal["file", "full", "minmax"] = "file"
    """file: the file's own window, and full where it has none; full: all stored bits; minmax: darkest to brightest."""
    bits: Annotated[int | None, "[8, 16]"] = None
    """Significant bits where no window applies; None: found."""


def plan(config: Config) -> Plan:
    """Return the plan of a folder of DICOM files.

    Raises:
        InputError: no DICOM file, or a table that cannot be used.
    """
    require()
    root = folder(config.src)
    sources, odd = list_files(root, ("",), counts=lambda name: _is_dicom(root / name))
    if not len(sources):
        raise InputError(f"{root}: no DICOM file in it; for other images: cxrdist shard csv")
    labels, labelled = _labels(config, root)
    refused = [(name, "file name is not UTF-8") for name in odd]
    rows = gather(_samples(config, read_headers(root, sources), refused), labels, [MATCH, UNWANTED])
    excluded = []
    if labelled is not None:
        rows, _ = labelled.joined(rows, MATCH)
        excluded.append(_unused(config, labelled, rows))
    rows, unwanted = split_off(rows, UNWANTED)
    rows = with_drawn_splits(rows, config)
    blank = [pc.is_null(rows[LABEL + label]).to_numpy() for label in labels]
    unlabelled = int(np.logical_and.reduce(blank).sum()) if labels else 0
    return build(
        Gathered(rows),
        name=config.name,
        source="DICOM folder",
        labels=labels,
        split_scheme="random",
        split_detail=config.split_detail(),
        opener=FileOpener(str(root)),
        excluded=[*excluded, unwanted],
        refused=refused,
        notes=[f"images without a label in the table, whose labels are null: {unlabelled}"] if unlabelled else [],
    )


def _is_dicom(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return looks_like_dicom(file.read(132))
    except OSError:
        return False


def _labels(config: Config, root: Path) -> tuple[list[str], SideTable | None]:
    """Return the labels of the table, and those of every image or study it names."""
    if config.table is None:
        return [], None
    table = Path(config.table) if Path(config.table).is_file() else root / config.table
    heading = next((row for _, row in read_table(table, (config.match,))), {})
    columns = {name: label for name in heading if (label := names.known(name)) is not None}
    if not columns:
        raise InputError(f"{table}: no column is a known label; its columns are {', '.join(heading) or '(no rows)'}")
    labels = sorted(set(columns.values()))
    if twice := next((label for label in labels if list(columns.values()).count(label) > 1), None):
        both = ", ".join(name for name, label in columns.items() if label == twice)
        raise InputError(f"{table}: columns {both} both hold {twice}; keep one of them")
    found = side_table(
        table, _label_rows(config, table, columns), labels_schema(labels), named=config.match, other="other labels"
    )
    return labels, found


def _label_rows(config: Config, table: Path, columns: dict[str, str]) -> Iterator[Entry]:
    labels = sorted(set(columns.values()))
    for line, row in read_table(table, (config.match,)):
        try:
            values = {label: cells.label(row[name]) for name, label in columns.items()}
        except ValueError as error:
            raise InputError(f"{table}, line {line}: a label is {error}; allowed are 1, 0, -1 and blank") from error
        key = row[config.match].strip()
        if not key:  # it would be the key of every file whose header says none
            raise InputError(f"{table}, line {line}: column {config.match} is empty")
        yield line, key, [values[label] for label in labels]


def _unused(config: Config, labelled: SideTable, rows: pa.Table) -> pa.Table:
    """Return `left_out` of the table's rows that no file belongs to."""
    unused = labelled.unused(rows, MATCH)
    if len(unused) and not config.allow_missing:
        raise InputError(
            f"{len(unused)} rows of {config.table} name no image (first: {pc.min(unused).as_py()}); complete the "
            "folder, or go on without them: --allow_missing true"
        )
    return left_out(unused, "row without an image file")


def _unwanted(config: Config, header: Header) -> str | None:
    """Return why a file is left out; None: it is not."""
    if not header.image:
        return "DICOM without an image"
    if config.views == "frontal" and header.view not in ("PA", "AP"):
        return "lateral view (views=frontal)" if header.view else "view unknown (views=frontal)"
    return None


def _samples(
    config: Config, headers: Iterable[tuple[str, Header | str]], refused: list[tuple[str, str]]
) -> Iterator[Sample]:
    for source, header in headers:
        if isinstance(header, str):
            refused.append((source, header))
        else:
            keys = {"SOPInstanceUID": header.instance, "StudyInstanceUID": header.study_id, "file": source}
            yield Sample(
                source=source,
                key=header.instance or source.replace("/", "_"),
                split="",
                patient_id=header.patient_id,
                study_id=header.study_id,
                view=header.view,
                sex=header.sex,
                age=header.age,
                beside={MATCH: keys[config.match] or "", UNWANTED: _unwanted(config, header)},
            )
