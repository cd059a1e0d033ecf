"""A user's own table of images: any CSV with a path column, for JPEG, PNG, TIFF and DICOM files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute

from shards import labels as names
from shards.config import CsvConfig
from shards.errors import InputError
from shards.nih import parse_age
from shards.plan import OUTSIDE, FileOpener, Plan, build, leaves
from shards.rows import Gathered, among, each, gather, keep, strings, with_column, without_repeats
from shards.sample import Sample
from shards.sources import IMAGE_ENDINGS, folder, list_files, read_table, reconcile
from shards.splits import cut_rows

pc: Any = pyarrow.compute  # its functions are made at import, unseen by type checkers

SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val"}
SPLITS |= {"test": "test", "testing": "test"}
VALUES = names.WRITTEN | {"true": 1, "false": 0, "nan": None}
_VIEWS = {"PA": "PA", "AP": "AP", "LATERAL": "LATERAL", "LAT": "LATERAL", "LL": "LATERAL", "L": "LATERAL"}
_SEXES = {"M": "M", "MALE": "M", "F": "F", "FEMALE": "F"}


def plan_csv(config: CsvConfig) -> Plan:
    """Return the plan of a user's own data set.

    Raises:
        InputError: a column is missing, a value is unknown, or rows and files do not match.
    """
    root = folder(config.src)
    table = Path(config.table) if Path(config.table).is_file() else root / config.table
    named = [config.path_column, config.patient_column, config.split_column, config.view_column]
    named += [config.sex_column, config.age_column, config.findings_column]
    if config.findings_column is None:
        named += list(config.labels or {})
    required = [name for name in named if name is not None]
    _, row = next(read_table(table, required), (0, None))
    if row is None:
        raise InputError(f"{table} has no rows")
    columns = label_columns(config, list(row), table)
    # The table is read twice rather than kept: its cells as Python strings take thousands of bytes a row.
    labels = sorted(set(columns.values()))
    if config.findings_column is not None:
        labels = _labels_of_findings(config, read_table(table, required), table)
    odd_cells = _OddCells(config)
    samples = (
        _sample(config, odd_cells.seen(row), labels, columns, f"{table}, line {line}", root)
        for line, row in read_table(table, required)
    )
    rows, repeats = without_repeats(gather(samples, labels), "source")
    refused = [(source, f"duplicate row in {table.name}") for source in repeats["source"].to_pylist()]
    if pc.any(pc.match_substring_regex(rows["source"], r"(?i)\.(dcm|dicom)$")).as_py():
        from shards.dicom import require

        require()
    outside = leaves(rows["source"])
    refused += [(source, OUTSIDE) for source in rows["source"].filter(pa.array(outside)).to_pylist()]
    rows = keep(rows, ~outside)
    files, odd = list_files(root, IMAGE_ENDINGS) if config.check_unlisted else (strings([]), [])
    # A row may name a file of any ending.
    others = rows["source"].filter(pa.array(~among(rows["source"], files)))
    more = strings(source for source in each(others) if os.path.isfile(root / source))
    files = pa.concat_arrays([files, more]) if len(more) else files
    excluded = reconcile(rows["source"], files, table=table.name, allow_missing=config.allow_missing, odd=odd)
    rows = keep(rows, among(rows["source"], files))
    del files, others
    if config.split_column is None:
        fractions = {"val_fraction": config.val_fraction, "test_fraction": config.test_fraction}
        patients = pc.coalesce(rows["patient_id"], rows["source"])
        rows = with_column(rows, "split", cut_rows(patients, config.seed, **fractions))
        del patients
    rows = Gathered(rows)
    return build(
        rows,
        name=config.name,
        source=f"own table {table.name}",
        labels=labels,
        split_scheme="list" if config.split_column else "random",
        split_detail={} if config.split_column else _detail(config),
        opener=FileOpener(str(root)),
        excluded=excluded,
        refused=refused,
        notes=odd_cells.notes(),
    )


class _OddCells:
    """Counts the cells of optional columns that become null though they are not blank."""

    def __init__(self, config: CsvConfig) -> None:
        readers = {config.view_column: _view, config.sex_column: _sex, config.age_column: parse_age}
        self.readers = {column: read for column, read in readers.items() if column}
        self.found: dict[str, tuple[int, str]] = {}

    def seen(self, row: dict[str, str]) -> dict[str, str]:
        """Count in one row, and return it."""
        for column, read in self.readers.items():
            text = row[column].strip()
            if text and read(text) is None:
                count, first = self.found.get(column, (0, text))
                self.found[column] = count + 1, first
        return row

    def notes(self) -> list[str]:
        """Return a line per column that has such cells."""
        return [
            f"column {column}: {count} values are not understood and become null (first: {first!r})"
            for column, (count, first) in self.found.items()
        ]


def _view(text: str) -> str | None:
    return _VIEWS.get(text.strip().upper())


def _sex(text: str) -> str | None:
    return _SEXES.get(text.strip().upper())


def _detail(config: CsvConfig) -> dict[str, object]:
    return {"val_fraction": config.val_fraction, "test_fraction": config.test_fraction, "seed": config.seed}


def label_columns(config: CsvConfig, header: list[str], table: Path) -> dict[str, str]:
    """Return column -> label; where no columns are given, every heading that is a known label.

    Raises:
        InputError: no label, an unknown one, or one label in two columns.
    """
    if config.findings_column is not None:
        return {}
    if config.labels is not None:
        found = {column: _own(label) for column, label in config.labels.items()}
    else:
        found = {column: name for column in header if (name := names.known(column)) is not None}
    if not found:
        raise InputError(
            f"{table}: no column is a known label ({', '.join(header)}); say which hold labels: "
            '--labels \'{"Column": "label_name"}\''
        )
    for label in set(found.values()):
        twice = [column for column, name in found.items() if name == label]
        if len(twice) > 1:
            raise InputError(f"{table}: columns {', '.join(twice)} both hold {label}; choose with --labels")
    return found


def _labels_of_findings(config: CsvConfig, rows: Iterable[tuple[int, dict[str, str]]], table: Path) -> list[str]:
    """Return every label that occurs in the findings column or is named by the user, alphabetical."""
    found = {_own(label) for label in (config.labels or {}).values()}
    for line, row in rows:
        for part in _parts(config, row):
            try:
                found.add(_finding(config, part))
            except InputError as error:
                mend = f'--labels \'{{"{part}": "label_name"}}\''
                raise InputError(f"{table}, line {line}: {error}; or name it: {mend}") from error
    if not found:
        raise InputError(f"{table}: column {config.findings_column} is empty in every row")
    return sorted(found)


def _parts(config: CsvConfig, row: dict[str, str]) -> list[str]:
    return [part.strip() for part in row[str(config.findings_column)].split(config.separator) if part.strip()]


def _finding(config: CsvConfig, text: str) -> str:
    own = (config.labels or {}).get(text)
    return names.canonical(text) if own is None else _own(own)


def _own(label: str) -> str:
    return names.known(label) or names.check_name(label)


def _sample(
    config: CsvConfig, row: dict[str, str], labels: list[str], columns: dict[str, str], where: str, root: Path
) -> Sample:
    source = _relative(row[config.path_column], root)
    if not source:
        raise InputError(f"{where}: column {config.path_column} is empty")
    split = row[config.split_column].strip().lower() if config.split_column else "train"
    if split not in SPLITS:
        raise InputError(f"{where}: split {split!r}; allowed are train, val, test")
    values: dict[str, int | None] = {}
    if config.findings_column is not None:
        named = {_finding(config, part) for part in _parts(config, row)}
        values.update({label: int(label in named) for label in labels})
    for column, label in columns.items():
        cell = row.get(column, "").strip().lower()
        if cell not in VALUES:
            raise InputError(f"{where}: {column} is {row[column]!r}; allowed are 1, 0, -1 (uncertain) and blank")
        values[label] = VALUES[cell]
    return Sample(
        source=source,
        key=str(PurePosixPath(source).with_suffix("")).replace("/", "_"),
        split=SPLITS[split],
        patient_id=(row[config.patient_column].strip() or None) if config.patient_column else None,
        labels=values,
        view=_view(row[config.view_column]) if config.view_column else None,
        sex=_sex(row[config.sex_column]) if config.sex_column else None,
        age=parse_age(row[config.age_column]) if config.age_column else None,
    )


def _relative(text: str, root: Path) -> str:
    """Return a path with "/" and relative to the root where it lies below it."""
    plain = text.strip().replace("\\", "/")
    for prefix in (str(root), str(root.resolve())):
        if plain.startswith(prefix.rstrip("/") + "/"):
            plain = plain[len(prefix.rstrip("/")) + 1 :]
    while plain.startswith("./"):
        plain = plain[2:]
    return plain
