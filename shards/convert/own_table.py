"""A user's own table of images: any CSV with a path column, for JPEG, PNG, TIFF and DICOM files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute

from shards import labels as names
from shards.convert import cells
from shards.convert.config import CsvConfig
from shards.convert.delimited import Dialect, dialect, read_table
from shards.convert.plan import OUTSIDE, FileOpener, Plan, build, leaves
from shards.convert.readings import READER, READERS, by_reader, unite
from shards.convert.rows import Gathered, among, coalesced, each, gather, keep, strings, with_column
from shards.convert.sample import Sample
from shards.convert.sources import IMAGE_ENDINGS, folder, list_files, reconcile, without_ending
from shards.convert.splits import cut_rows
from shards.errors import InputError

pc: Any = pyarrow.compute  # its functions are made at import, unseen by type checkers

SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SPLITS |= dict.fromkeys(("val", "valid", "validate", "validation", "dev", "tune"), "val")


def plan_csv(config: CsvConfig) -> Plan:
    """Return the plan of a user's own dataset.

    Raises:
        InputError: a column is missing, a value is unknown, or rows and files do not match.
    """
    root = folder(config.src)
    table = _Table(config, root)
    odd_cells = _OddCells(config)
    rows = gather(table.samples(odd_cells), table.labels, [READER] if config.reader_column else [])
    rows = _one_row_each(rows, config, table.path.name)
    if pc.any(pc.match_substring_regex(rows["source"], r"(?i)\.(dcm|dicom)$")).as_py():
        from shards.convert.dicom import require

        require()
    outside = leaves(rows["source"])
    refused = [(source, OUTSIDE) for source in rows["source"].filter(pa.array(outside)).to_pylist()]
    rows = keep(rows, ~outside)
    files, odd = list_files(root, IMAGE_ENDINGS) if config.check_unlisted else (strings([]), [])
    # A row may name a file of any ending.
    others = rows["source"].filter(pa.array(~among(rows["source"], files)))
    more = strings(source for source in each(others) if os.path.isfile(root / source))
    files = pa.chunked_array([*files.chunks, *more.chunks], pa.string())
    unpaired = reconcile(rows["source"], files, table=table.path.name, allow_missing=config.allow_missing, odd=odd)
    rows = keep(rows, among(rows["source"], files))
    del files, others
    if config.split_column is None:
        fractions = {"val_fraction": config.val_fraction, "test_fraction": config.test_fraction}
        patients = coalesced(rows, "patient_id", "source")
        rows = with_column(rows, "split", cut_rows(patients, config.seed, **fractions))
        del patients
    rows = Gathered(rows)
    return build(
        rows,
        name=config.name,
        source=f"own table {table.path.name}",
        labels=table.labels,
        split_scheme="list" if config.split_column else "random",
        split_detail={} if config.split_column else _detail(config),
        opener=FileOpener(str(root)),
        excluded=[unpaired],
        refused=refused,
        notes=table.notes() + odd_cells.notes(),
    )


class _Table:
    """The user's table, read twice rather than kept: its cells as Python strings take thousands of bytes a row."""

    def __init__(self, config: CsvConfig, root: Path) -> None:
        self.config, self.root = config, root
        self.path = Path(config.table) if Path(config.table).is_file() else root / config.table
        self.dialect: Dialect = dialect(self.path, self._required(), config.delimiter, config.encoding)
        row = next((row for _, row in self.rows()), None)
        if row is None:
            raise InputError(f"{self.path} has no rows")
        self.columns = label_columns(config, list(row), self.path)
        self.ignored: Counter[str] = Counter()
        self.labels = sorted(set(self.columns.values()))
        if config.findings_column is not None:
            self.labels = self._labels_of_findings()

    def _required(self) -> list[str]:
        config = self.config
        named = [config.path_column, config.patient_column, config.split_column, config.view_column]
        named += [
            config.study_column,
            config.sex_column,
            config.age_column,
            config.findings_column,
            config.reader_column,
        ]
        named += list(config.labels or {}) if config.findings_column is None else []
        return [name for name in named if name is not None]

    def rows(self) -> Iterator[tuple[int, dict[str, str]]]:
        """Yield (line number, row)."""
        return read_table(self.path, self._required(), self.dialect.delimiter, self.dialect.encoding)

    def samples(self, odd: _OddCells) -> Iterator[Sample]:
        """Yield the rows as samples."""
        for line, row in self.rows():
            where = f"{self.path}, line {line}"
            yield _sample(self.config, odd.seen(row), self.labels, self.columns, where, self.root)

    def notes(self) -> list[str]:
        """Return lines for the user."""
        told = self.dialect.note(self.path)
        if self.ignored:
            (most, _), count, kinds = self.ignored.most_common(1)[0], self.ignored.total(), len(self.ignored)
            told.append(f"{count} findings of {kinds} kinds are ignored (most often: {most!r})")
        return told

    def _labels_of_findings(self) -> list[str]:
        """Return every label that occurs in the findings column or is named by the user, alphabetical."""
        found = {_own(label) for label in (self.config.labels or {}).values()}
        for line, row in self.rows():
            for part in _parts(self.config, row, f"{self.path}, line {line}"):
                if (label := _finding(self.config, part)) is not None:
                    found.add(label)
                elif self.config.other_findings == "ignore":
                    self.ignored[part] += 1
                else:
                    raise InputError(
                        f"{self.path}, line {line}: unknown label {part!r}; the labels are "
                        f'{", ".join(names.CANONICAL)}; or name it: --labels \'{{"{part}": "label_name"}}\', or leave '
                        "such findings out: --other_findings ignore"
                    )
        if not found:
            raise InputError(f"{self.path}: column {self.config.findings_column} is empty in every row")
        return sorted(found)


def _one_row_each(rows: pa.Table, config: CsvConfig, table: str) -> pa.Table:
    """Return one row per image of rows per box, report or reader."""
    findings = config.findings_column is not None
    choice = f"--readers {'|'.join(READERS)} joins the labels of several readers"
    if config.reader_column:
        rows = unite(rows, by=by_reader(rows), where=f"{table} (rows of one reader)", findings=findings)
    elif config.readers and findings:
        raise InputError("--readers with --findings_column needs --reader_column NAME: which rows are of one reader?")
    return unite(rows, where=table, findings=findings, readers=config.readers, fix=choice)


class _OddCells:
    """Counts the cells of optional columns that are not blank and still become null."""

    def __init__(self, config: CsvConfig) -> None:
        readers = {config.view_column: cells.view, config.sex_column: cells.sex, config.age_column: cells.age}
        self.readers = {column: read for column, read in readers.items() if column}
        self.found: dict[str, tuple[int, str]] = {}

    def seen(self, row: dict[str, str]) -> dict[str, str]:
        """Count such cells in one row, and return the row."""
        for column, read in self.readers.items():
            text = row[column].strip()
            if not cells.blank(text) and read(text) is None:
                count, first = self.found.get(column, (0, text))
                self.found[column] = count + 1, first
        return row

    def notes(self) -> list[str]:
        """Return a line per column that has such cells."""
        return [
            f"column {column}: {count} values are not understood and become null (first: {first!r})"
            for column, (count, first) in self.found.items()
        ]


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


def _parts(config: CsvConfig, row: dict[str, str], where: str) -> list[str]:
    try:
        return cells.parts(row[str(config.findings_column)], config.separator)
    except ValueError as error:
        raise InputError(f"{where}: column {config.findings_column}: {error}") from error


def _finding(config: CsvConfig, text: str) -> str | None:
    own = (config.labels or {}).get(text)
    return names.known(text) if own is None else _own(own)


def _own(label: str) -> str:
    return names.known(label) or names.check_name(label)


def _sample(
    config: CsvConfig, row: dict[str, str], labels: list[str], columns: dict[str, str], where: str, root: Path
) -> Sample:
    if cells.blank(row[config.path_column]):
        raise InputError(f"{where}: column {config.path_column} is empty")
    source = _relative(f"{config.path_prefix}{row[config.path_column].strip()}{config.path_suffix}", root)
    split = row[config.split_column].strip().lower() if config.split_column else "train"
    if split not in SPLITS:
        raise InputError(f"{where}: split {split!r}; allowed are train, val, test")
    values: dict[str, int | None] = {}
    if config.findings_column is not None:
        named = {_finding(config, part) for part in _parts(config, row, where)}
        values.update({label: int(label in named) for label in labels})
    for column, label in columns.items():
        try:
            values[label] = cells.label(row[column])
        except ValueError as error:
            allowed = "1, 0, -1 (uncertain), yes, no and blank"
            raise InputError(f"{where}: {column} is {row[column]!r}; allowed are {allowed}") from error
    return Sample(
        source=source,
        key=without_ending(source).replace("/", "_"),
        split=SPLITS[split],
        patient_id=cells.patient(row[config.patient_column]) if config.patient_column else None,
        study_id=cells.patient(row[config.study_column]) if config.study_column else None,
        labels=values,
        view=cells.view(row[config.view_column]) if config.view_column else None,
        sex=cells.sex(row[config.sex_column]) if config.sex_column else None,
        age=cells.age(row[config.age_column]) if config.age_column else None,
        beside={READER: row[config.reader_column].strip()} if config.reader_column else {},
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
