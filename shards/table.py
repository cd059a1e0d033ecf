"""A user's own table of images: any CSV with a path column, for JPEG, PNG, TIFF and DICOM files."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from shards import labels as names
from shards.config import CsvConfig
from shards.errors import InputError
from shards.nih import parse_age
from shards.plan import FileOpener, Plan, Sample, build, printable
from shards.sources import IMAGE_ENDINGS, find_files, folder, read_table, reconcile
from shards.splits import cut_by_patient

SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val"}
SPLITS |= {"test": "test", "testing": "test"}
VALUES = {"1": 1, "1.0": 1, "true": 1, "0": 0, "0.0": 0, "false": 0, "-1": -1, "-1.0": -1, "": None, "nan": None}
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
    rows = list(read_table(table, [name for name in named if name is not None]))
    if not rows:
        raise InputError(f"{table} has no rows")
    columns = label_columns(config, list(rows[0][1]), table)
    labels = _labels_of_findings(config, rows, table) if config.findings_column else sorted(set(columns.values()))
    refused: list[tuple[str, str]] = []
    samples: dict[str, Sample] = {}
    for line, row in rows:
        sample = _sample(config, row, labels, columns, f"{table}, line {line}", root)
        if sample.source in samples:
            refused.append((sample.source, f"duplicate row in {table.name}"))
        else:
            samples[sample.source] = sample
    if any(source.lower().endswith((".dcm", ".dicom")) for source in samples):
        from shards.dicom import require

        require()
    leaving = {source for source in samples if _leaves(source)}
    refused += [(source, "path leaves the source folder") for source in leaving]
    inside = [source for source in samples if source not in leaving]
    files = set(find_files(root, IMAGE_ENDINGS)) if config.check_unlisted else set()
    files |= {source for source in inside if source not in files and os.path.isfile(root / source)}
    excluded = reconcile(inside, files, table=table.name, allow_missing=config.allow_missing)
    kept = [samples[source] for source in inside if source in files]
    return build(
        _with_splits(kept, config),
        name=config.name,
        source=f"own table {table.name}",
        labels=labels,
        split_scheme="list" if config.split_column else "random",
        split_detail={} if config.split_column else _detail(config),
        opener=FileOpener(str(root)),
        excluded=excluded,
        refused=refused,
        notes=_not_understood(config, rows),
    )


def _not_understood(config: CsvConfig, rows: list[tuple[int, dict[str, str]]]) -> list[str]:
    """Say how many cells of optional columns became null though they were not blank."""
    readers = {config.view_column: _view, config.sex_column: _sex, config.age_column: parse_age}
    notes = []
    for column, read in readers.items():
        odd = [row[column].strip() for _, row in rows if column and row[column].strip() and read(row[column]) is None]
        if odd:
            notes.append(f"column {column}: {len(odd)} values are not understood and become null (first: {odd[0]!r})")
    return notes


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


def _labels_of_findings(config: CsvConfig, rows: list[tuple[int, dict[str, str]]], table: Path) -> list[str]:
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


def _leaves(source: str) -> bool:
    return source.startswith("/") or ".." in source.split("/") or "\0" in source or printable(source) != source


def _with_splits(samples: list[Sample], config: CsvConfig) -> Iterator[Sample]:
    """Fill in the splits, drawn by patient where the table has none."""
    splits = [sample.split for sample in samples]
    if config.split_column is None:
        patients = [sample.patient_id or sample.source for sample in samples]
        splits = cut_by_patient(
            patients, config.seed, val_fraction=config.val_fraction, test_fraction=config.test_fraction
        )
    for sample, split in zip(samples, splits, strict=True):
        yield dataclasses.replace(sample, split=split)
