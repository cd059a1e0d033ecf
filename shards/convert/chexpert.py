"""CheXpert (Irvin et al., AAAI 2019): full size or -small, with or without the test set."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from shards import labels as names
from shards.convert import cells
from shards.convert.about import About
from shards.convert.config import ChexpertConfig
from shards.convert.delimited import read_table
from shards.convert.plan import FileOpener, Plan, build
from shards.convert.readings import unite
from shards.convert.rows import Gathered, among, gather, keep, looked_up, one, place, split_off_views, with_column
from shards.convert.sample import Sample
from shards.convert.sources import folder, list_files, reconcile
from shards.convert.spill import stored
from shards.convert.splits import draw_rows
from shards.errors import InputError
from shards.format import SPLITS

pc: Any = pyarrow.compute  # its functions are made at import, unseen by type checkers

ABOUT = About(
    licence="Stanford University Dataset Research Use Agreement: no redistribution",
    citation="""@inproceedings{irvin2019chexpert,
  author = {Irvin, Jeremy and Rajpurkar, Pranav and Ko, Michael and Yu, Yifan and Ciurea-Ilcus, Silviana and others},
  title = {CheXpert: A Large Chest Radiograph Dataset with Uncertainty Labels and Expert Comparison},
  booktitle = {AAAI Conference on Artificial Intelligence},
  volume = {33},
  pages = {590--597},
  year = {2019}
}""",
    home="https://stanfordmlgroup.github.io/competitions/chexpert/",
)
LABELS = (*names.CHEXPERT, "no_finding")
TABLES = {
    "train": ("train.csv",),
    "valid": ("valid.csv", "val.csv", "val_labels.csv"),
    "test": ("test.csv", "test_labels.csv"),
}
"""Tables of a split, the first that exists is taken; val_labels.csv and test_labels.csv are CheXlocalize's."""
_PATH = re.compile(r"(?:^|/)(train|valid|val|test)/(patient\d+)/(study\d+)/(view\d+_(frontal|lateral)\.\w+)$")
_BATCH = re.compile(r"^CheXpert-v1\.0 batch \d+ \((train|valid)[^/]*/(?=patient)")
"""A folder of the full-size download that stands for train/: "CheXpert-v1.0 batch 2 (train 1)"."""
_SEXES = {"Male": "M", "Female": "F", "M": "M", "F": "F"}


def plan_chexpert(config: ChexpertConfig) -> Plan:
    """Return the plan of a CheXpert conversion.

    Raises:
        InputError: a table or column is missing, a value is unknown, or rows and files do not match.
    """
    root, tables = find_tables(folder(config.src), config.table)
    parts, refused, notes = [], [], []
    for split, table in tables.items():
        rows = unite(gather(read_rows(table, split, notes), LABELS), where=table.name)
        known = np.logical_or.reduce([among(rows["source"], part["source"]) for part in parts] or [False])
        repeats = rows["source"].filter(pa.array(known)).to_pylist() if known.any() else []
        refused += [(source, f"duplicate row in {table.name}") for source in repeats]
        parts.append(keep(rows, ~known) if repeats else rows)
    rows = pa.concat_tables(parts)
    del parts
    files, paths, odd = _images(root, set(tables))
    listed = " + ".join(table.name for table in tables.values())
    excluded = [reconcile(rows["source"], files, table=listed, allow_missing=config.allow_missing, odd=odd)]
    rows = keep(rows, among(rows["source"], files))
    rows = with_column(rows, "source", looked_up(paths, place(rows["source"], files)))
    del files, paths
    if config.views == "frontal":
        rows, laterals = split_off_views(rows, keep_unknown=True)
        excluded.append(laterals)
    rows = Gathered(with_column(rows, "split", _splits(rows, config)))
    return build(
        rows,
        name="chexpert",
        source="CheXpert (Irvin et al., AAAI 2019)",
        about=ABOUT,
        labels=LABELS,
        split_scheme="official",
        split_detail=_detail(config),
        opener=FileOpener(str(root)),
        excluded=excluded,
        refused=refused,
        notes=notes,
    )


def find_tables(src: Path, given: str | None) -> tuple[Path, dict[str, Path]]:
    """Return the folder of the images and the table of every split that has one.

    The images' folder is `src`, the one folder in it that has a table (CheXpert-v1.0-small), or `src` with the folders
    "CheXpert-v1.0 batch N (...)" of the full-size download, whose first holds the tables. `given` replaces train.csv.

    Raises:
        InputError: no table, or several folders that have one.
    """
    own = None
    if given is not None:
        own = Path(given) if Path(given).is_file() else src / given
        if not own.is_file():
            raise InputError(f"--table {given}: no such file, here or in {src}")
    inside = [path for path in sorted(src.iterdir()) if path.is_dir()]
    batches = [path for path in inside if path.name.startswith("CheXpert-v1.0 batch")]
    if batches:
        root, places = src, [src, *batches]
    else:
        having = [path for path in (src, *inside) if _tables_in([path])]
        if src in having:
            having = [src]
        if len(having) != 1 and own is None:
            found = f"{len(having)} folders in it have one" if having else "none there"
            raise InputError(f"{src}: no train.csv ({found}); --src must be the folder of train.csv, train/ and valid/")
        root = having[0] if len(having) == 1 else src
        places = [root]
    tables = _tables_in(places)
    if own is not None:
        tables = {"train": own} | {split: table for split, table in tables.items() if split != "train"}
    if not tables:
        raise InputError(f"{src}: none of the batch folders holds train.csv or valid.csv; unpack batch 1 as well")
    return root, {split: tables[split] for split in TABLES if split in tables}


def _tables_in(places: Sequence[Path]) -> dict[str, Path]:
    every = {split: [place / name for place in places for name in choices] for split, choices in TABLES.items()}
    found = {split: next((path for path in paths if path.is_file()), None) for split, paths in every.items()}
    return {split: path for split, path in found.items() if path is not None}


def _images(root: Path, splits: set[str]) -> tuple[pa.ChunkedArray, pa.ChunkedArray, list[str]]:
    """Return the images as the tables name them (train/patientN/...), where each lies, and unusable names."""
    folders = {split: ("valid", "val") if split == "valid" else (split,) for split in splits}
    wanted = {name for names in folders.values() for name in names}

    def leads_on(name: str) -> bool:
        top = name.split("/")[0]
        return top in wanted or top.startswith("CheXpert-v1.0 batch")

    paths, odd = list_files(root, (".jpg", ".jpeg", ".png"), leads_on)
    columns = pa.schema([("file", pa.string()), ("path", pa.string())])

    def named() -> Iterator[pa.RecordBatch]:
        for some in paths.chunks:
            some = some.filter(pc.match_substring(some, "/"))
            files = pc.replace_substring_regex(some, _BATCH.pattern.replace("(?=patient)", "(patient)"), r"\1/\2")
            files = pc.replace_substring_regex(files, r"^CheXpert-v1\.0 batch[^/]*/", "")
            yield pa.record_batch([pc.replace_substring_regex(files, r"^val/", "valid/"), some], schema=columns)

    table = stored(named(), columns)
    return table["file"], table["path"], odd


def read_rows(table: Path, split: str, notes: list[str] | None = None) -> Iterator[Sample]:
    """Yield the rows of train.csv, valid.csv or the test table, whatever folder their paths begin with.

    The test table has no Sex, Age and view columns in some releases; the view then comes from the file name. Labels it
    has no column for are null, and `notes` gets a line that says so; the other tables must have all.

    Raises:
        InputError: a column is missing, or a path or value is not allowed.
    """
    columns: dict[str, str] | None = None
    for line, row in read_table(table, ("Path",)):
        columns = columns or observation_columns(row, table, optional=split == "test", notes=notes)
        match = _PATH.search(row["Path"].strip().replace("\\", "/"))
        where = f"{table}, line {line}"
        if match is None:
            raise InputError(f"{where}: path {row['Path']!r} is not .../train/patientN/studyN/viewN_frontal.jpg")
        top, patient, study, file, side = match.groups()
        view = row.get("AP/PA", "").strip().upper()
        yield Sample(
            source=f"{'valid' if top == 'val' else top}/{patient}/{study}/{file}",
            key=f"{patient}_{study}_{file.partition('.')[0]}",
            split=split,
            patient_id=patient,
            study_id=f"{patient}_{study}",
            labels=observations(row, columns, where),
            view="LATERAL" if side == "lateral" else view if view in ("AP", "PA") else None,
            sex=_SEXES.get(row.get("Sex", "").strip()),
            age=cells.age(row.get("Age", "")),
        )


def observation_columns(
    row: dict[str, str], table: Path, *, optional: bool = False, notes: list[str] | None = None
) -> dict[str, str]:
    """Return column -> label of a table in CheXpert's columns.

    Args:
        row: any row of it.
        table: for messages.
        optional: a table may lack some of the 14; `notes` then gets a line that says which.
        notes: lines for the user.

    Raises:
        InputError: a label has no column, or two.
    """
    found = {column: name for column in row if (name := names.known(column)) in LABELS}
    missing = [name for name in LABELS if name not in found.values()]
    if missing and (not optional or not found):
        raise InputError(f"{table}: no column for {', '.join(missing)}; its columns are {', '.join(row)}")
    if len(set(found.values())) < len(found):
        raise InputError(f"{table}: two columns hold one label; its columns are {', '.join(row)}")
    if missing and notes is not None:
        notes.append(f"{table.name} has no column for {', '.join(missing)}: unlabelled (null) there")
    return found


def observations(row: dict[str, str], columns: dict[str, str], where: str) -> dict[str, int | None]:
    """Return the labels of a row: 1, 0, -1 or None.

    Raises:
        InputError: a cell that is anything else; `where` names file and line.
    """
    values: dict[str, int | None] = {}
    for column, name in columns.items():
        try:
            values[name] = cells.label(row[column])
        except ValueError as error:
            raise InputError(f"{where}: {column} is {row[column]!r}; allowed are 1.0, 0.0, -1.0 and blank") from error
    return values


def _splits(rows: pa.Table, config: ChexpertConfig) -> pa.ChunkedArray:
    """Return train, val or test of every row from the name of its table."""
    train, valid, test = (
        one(pc.equal(rows["split"], name)).to_numpy(zero_copy_only=False) for name in ("train", "valid", "test")
    )
    if config.valid_as == "test" and test.any():
        raise InputError("valid_as=test, but the test set is there: leave valid_as out")
    codes = np.where(test, SPLITS.index("test"), SPLITS.index("train")).astype(np.int8)
    codes[valid] = SPLITS.index(config.valid_as)
    if config.valid_as == "test":
        val = draw_rows(rows["patient_id"].filter(pa.array(train)), config.val_fraction, config.seed)
        codes[np.flatnonzero(train)[val]] = SPLITS.index("val")
    return looked_up(pa.array(SPLITS), pa.array(codes))


def _detail(config: ChexpertConfig) -> dict[str, object]:
    if config.valid_as == "val":
        return {"valid_as": "val"}
    return {"valid_as": "test", "val_fraction": config.val_fraction, "seed": config.seed}
