"""CheXpert (Irvin et al., AAAI 2019): full size or -small, with or without the test set."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from shards import labels as names
from shards.config import ChexpertConfig
from shards.errors import InputError
from shards.nih import parse_age
from shards.plan import FileOpener, Plan, build
from shards.rows import Gathered, among, first_of_each, gather, keep, one, with_column
from shards.sample import SPLITS, Sample
from shards.sources import folder, list_files, read_table, reconcile
from shards.splits import draw_rows

pc: Any = pyarrow.compute  # its functions are made at import, unseen by type checkers

LABELS = (*names.CHEXPERT, "no_finding")
TABLES = {"train": ("train.csv",), "valid": ("valid.csv",), "test": ("test.csv", "test_labels.csv")}
_PATH = re.compile(r"(train|valid|test)/(patient\d+)/(study\d+)/(view\d+_(frontal|lateral)\.\w+)$")


def plan_chexpert(config: ChexpertConfig) -> Plan:
    """Return the plan of a CheXpert conversion.

    Raises:
        InputError: train.csv or a column is missing, a value is unknown, or rows and files do not match.
    """
    root = find_root(folder(config.src))
    tables, parts, refused = [], [], []
    for split, candidates in TABLES.items():
        table = next((root / name for name in candidates if (root / name).is_file()), None)
        if table is None:
            continue
        rows = gather(read_rows(table, split), LABELS)
        known = np.logical_or.reduce([among(rows["source"], part["source"]) for part in parts] or [False])
        first = first_of_each(rows["source"]) & ~known
        repeats = rows["source"].filter(pa.array(~first)).to_pylist()
        refused += [(source, f"duplicate row in {table.name}") for source in repeats]
        tables.append(table.name)
        parts.append(keep(rows, first))
    rows = pa.concat_tables(parts)
    del parts
    with_table = {split for split, candidates in TABLES.items() if any(name in tables for name in candidates)}
    paths, odd = list_files(root, (".jpg", ".jpeg", ".png"), lambda name: name.split("/")[0] in with_table)
    files = paths.filter(pc.match_substring(paths, "/"))
    del paths
    listed = " + ".join(tables)
    excluded = reconcile(rows["source"], files, table=listed, allow_missing=config.allow_missing, odd=odd)
    rows = keep(rows, among(rows["source"], files))
    del files
    if config.views == "frontal":
        lateral = pc.fill_null(pc.equal(rows["view"], "LATERAL"), False)
        excluded += [(source, "lateral view (views=frontal)") for source in rows["source"].filter(lateral).to_pylist()]
        rows = keep(rows, ~one(lateral).to_numpy(zero_copy_only=False))
    rows = Gathered(with_column(rows, "split", _splits(rows, config)))
    return build(
        rows,
        name="chexpert",
        source="CheXpert (Irvin et al., AAAI 2019)",
        labels=LABELS,
        split_scheme="official",
        split_detail=_detail(config),
        opener=FileOpener(str(root)),
        excluded=excluded,
        refused=refused,
    )


def find_root(src: Path) -> Path:
    """Return the folder of train.csv: `src`, or the one folder in it that has it (CheXpert-v1.0-small)."""
    if (src / "train.csv").is_file():
        return src
    inside = sorted(path.parent for path in src.glob("*/train.csv"))
    if len(inside) != 1:
        found = f"{len(inside)} folders in it have one" if inside else "none there"
        raise InputError(f"{src}: no train.csv ({found}); --src must be the folder of train.csv, train/ and valid/")
    return inside[0]


def read_rows(table: Path, split: str) -> Iterator[Sample]:
    """Yield the rows of train.csv, valid.csv or the test table, whatever folder their paths begin with.

    The test table has no Sex, Age and view columns in some releases; the view then comes from the file name.
    """
    for line, row in read_table(table, ("Path",)):
        match = _PATH.search(row["Path"].strip().replace("\\", "/"))
        where = f"{table}, line {line}"
        if match is None:
            raise InputError(f"{where}: path {row['Path']!r} is not .../train/patientN/studyN/viewN_frontal.jpg")
        _, patient, study, file, side = match.groups()
        view = row.get("AP/PA", "").strip().upper()
        sex = row.get("Sex", "").strip()
        yield Sample(
            source=match.group(0),
            key=f"{patient}_{study}_{file.partition('.')[0]}",
            split=match.group(1) if match.group(1) == split else split,
            patient_id=patient,
            labels=_labels(row, where),
            view="LATERAL" if side == "lateral" else view if view in ("AP", "PA") else None,
            sex={"Male": "M", "Female": "F", "M": "M", "F": "F"}.get(sex),
            age=parse_age(row.get("Age", "")),
        )


def _labels(row: dict[str, str], where: str) -> dict[str, int | None]:
    values: dict[str, int | None] = {}
    for column, cell in row.items():
        name = names.known(column)
        if name not in LABELS:
            continue
        if cell.strip() not in names.WRITTEN:
            raise InputError(f"{where}: {column} is {cell!r}; allowed are 1.0, 0.0, -1.0 and blank")
        values[name] = names.WRITTEN[cell.strip()]
    if not values:
        raise InputError(f"{where}: none of CheXpert's label columns is there")
    return values


def _splits(rows: pa.Table, config: ChexpertConfig) -> pa.Array:
    """Return train, val or test of every row from the name of its table."""
    train, valid, test = (
        one(pc.equal(rows["split"], name)).to_numpy(zero_copy_only=False) for name in ("train", "valid", "test")
    )
    if config.valid_as == "test" and test.any():
        raise InputError("valid_as=test, but the test set is there: leave valid_as out")
    codes = np.where(test, SPLITS.index("test"), SPLITS.index("train"))
    codes[valid] = SPLITS.index(config.valid_as)
    if config.valid_as == "test":
        val = draw_rows(rows["patient_id"].filter(pa.array(train)), config.val_fraction, config.seed)
        codes[np.flatnonzero(train)[val]] = SPLITS.index("val")
    return pa.array(SPLITS).take(pa.array(codes))


def _detail(config: ChexpertConfig) -> dict[str, object]:
    if config.valid_as == "val":
        return {"valid_as": "val"}
    return {"valid_as": "test", "val_fraction": config.val_fraction, "seed": config.seed}
