"""A folder of DICOM files as a dataset of its own: patients and studies from the headers, labels from a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow.compute

from shards import labels as names
from shards.convert import cells
from shards.convert.config import DrawnSplits, path_field
from shards.convert.delimited import read_table
from shards.convert.dicom import looks_like_dicom, require
from shards.convert.dicom_headers import Header, read_headers
from shards.convert.opener import FileOpener
from shards.convert.plan import Plan, build, reject_table
from shards.convert.rows import Gathered, gather
from shards.convert.sample import Sample
from shards.convert.sources import find_files, folder
from shards.convert.splits import with_drawn_splits
from shards.errors import InputError
from shards.format import LABEL

pc: Any = pyarrow.compute  # its functions are made at import, unseen by type checkers


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
    sources = [name for name in find_files(root, ("",)) if _is_dicom(root / name)]
    if not sources:
        raise InputError(f"{root}: no DICOM file in it; for other images: cxrdist shard csv")
    headers = read_headers(root, sources)
    labels, labelled = _labels(config, root)
    excluded: list[tuple[str, str]] = []
    refused: list[tuple[str, str]] = []
    used: set[str] = set()
    rows = gather(_samples(config, sources, headers, labelled, used, excluded, refused), labels)
    unused = sorted(set(labelled) - used)
    if unused and not config.allow_missing:
        raise InputError(
            f"{len(unused)} rows of {config.table} name no image (first: {unused[0]}); complete the folder, or go on "
            "without them: --allow_missing true"
        )
    excluded += [(name, "row without an image file") for name in unused]
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
        excluded=[reject_table(excluded)],
        refused=refused,
        notes=[f"{unlabelled} images have no label in the table: their labels are null"] if unlabelled else [],
    )


def _is_dicom(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return looks_like_dicom(file.read(132))
    except OSError:
        return False


def _labels(config: Config, root: Path) -> tuple[list[str], dict[str, dict[str, int | None]]]:
    """Return the labels of the table, and those of every image or study it names."""
    if config.table is None:
        return [], {}
    table = Path(config.table) if Path(config.table).is_file() else root / config.table
    columns: dict[str, str] = {}
    found: dict[str, dict[str, int | None]] = {}
    for line, row in read_table(table, (config.match,)):
        columns = columns or {name: label for name in row if (label := names.known(name)) is not None}
        if not columns:
            raise InputError(f"{table}: no column is a known label; its columns are {', '.join(row)}")
        try:
            values = {label: cells.label(row[name]) for name, label in columns.items()}
        except ValueError as error:
            raise InputError(f"{table}, line {line}: a label is {error}; allowed are 1, 0, -1 and blank") from error
        if found.setdefault(row[config.match].strip(), values) != values:
            raise InputError(f"{table}, line {line}: {row[config.match].strip()} has another row with other labels")
    return sorted(set(columns.values())), found


def _samples(
    config: Config,
    sources: Sequence[str],
    headers: Sequence[Header | str],
    labelled: dict[str, dict[str, int | None]],
    used: set[str],
    excluded: list[tuple[str, str]],
    refused: list[tuple[str, str]],
) -> Iterator[Sample]:
    for source, header in zip(sources, headers, strict=True):
        if isinstance(header, str):
            refused.append((source, header))
        elif not header.image:
            excluded.append((source, "DICOM without an image"))
        elif config.views == "frontal" and header.view not in ("PA", "AP"):
            excluded.append((source, "lateral view (views=frontal)" if header.view else "view unknown (views=frontal)"))
        else:
            keys = {"SOPInstanceUID": header.instance, "StudyInstanceUID": header.study_id, "file": source}
            key = keys[config.match] or ""
            if key in labelled:
                used.add(key)
            yield Sample(
                source=source,
                key=header.instance or source.replace("/", "_"),
                split="",
                patient_id=header.patient_id,
                study_id=header.study_id,
                labels=labelled.get(key, {}),
                view=header.view,
                sex=header.sex,
                age=header.age,
            )
