"""NIH ChestX-ray14 (Wang et al., CVPR 2017): the 2017 and 2020 tables, the full download or Kaggle's sample."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from shards import labels as names
from shards.config import NihConfig
from shards.errors import InputError
from shards.plan import FileOpener, Plan, Sample, build
from shards.sources import find_files, folder, read_names, read_table, reconcile
from shards.splits import cut_by_patient, draw_groups, in_both

TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv", "sample_labels.csv")
LABELS = (*names.NIH, "no_finding")
COLUMNS = ("Image Index", "Finding Labels", "Patient ID", "Patient Age", "Patient Gender", "View Position")
OLDEST = 120.0
"""Ages above this many years (411 occurs) are typing errors and become null."""

_AGE = re.compile(r"(\d+(?:\.\d*)?)\s*([YMWD]?)", re.IGNORECASE)
_YEARS = {"": 1.0, "Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}


def plan_nih(config: NihConfig) -> Plan:
    """Return the plan of an NIH conversion.

    Raises:
        InputError: a table, list or column is missing, a finding is unknown, or rows and files do not match.
    """
    root = folder(config.src)
    table = find_table(root, config.table)
    files: dict[str, str] = {}
    refused: list[tuple[str, str]] = []
    for path in find_files(root, (".png", ".jpg", ".jpeg")):
        name = path.rpartition("/")[2]
        if name in files:
            refused.append((path, f"duplicate file name (taken by {files[name]})"))
        else:
            files[name] = path
    rows: dict[str, Sample] = {}
    for sample in read_rows(table):
        if sample.source in rows:
            refused.append((sample.source, f"duplicate row in {table.name}"))
        else:
            rows[sample.source] = sample
    excluded = [
        (files.get(name, name), reason)
        for name, reason in reconcile(rows, files, table=table.name, allow_missing=config.allow_missing)
    ]
    present = {name: rows[name] for name in rows if name in files}
    split_of, unlisted = _splits(config, root, present)
    excluded += [(files[name], "in none of the split lists") for name in unlisted]
    samples = [
        dataclasses.replace(sample, source=files[name], split=split_of[name])
        for name, sample in present.items()
        if name in split_of
    ]
    boxes = read_boxes(root, files)
    return build(
        samples,
        name="nih",
        source="NIH ChestX-ray14 (Wang et al., CVPR 2017)",
        labels=LABELS,
        split_scheme=config.splits,
        split_detail={"val_fraction": config.val_fraction, "seed": config.seed} if config.splits != "list" else {},
        opener=FileOpener(str(root)),
        excluded=excluded,
        refused=refused,
        boxes=boxes,
    )


def find_table(root: Path, given: str | None) -> Path:
    """Return the CSV of findings: the given one (looked up here, then in the source), or the one found."""
    if given is not None:
        return Path(given) if Path(given).is_file() else root / given
    found = [root / name for name in TABLES if (root / name).is_file()]
    if not found:
        raise InputError(f"{root}: none of {', '.join(TABLES)} is there; name the table: --table FILE")
    return found[0]


def read_rows(table: Path) -> Iterator[Sample]:
    """Yield the rows of any variant of the table; `source` is the bare image name, split is not set yet."""
    for line, row in read_table(table, COLUMNS):
        name = row["Image Index"].strip()
        view = row["View Position"].strip().upper()
        sex = row["Patient Gender"].strip().upper()
        yield Sample(
            source=name,
            key=name.rpartition(".")[0] or name,
            split="",
            patient_id=_patient(row["Patient ID"], table, line),
            labels=findings(row["Finding Labels"], "|", LABELS, f"{table}, line {line}"),
            view=view if view in ("PA", "AP") else None,
            sex=sex if sex in ("M", "F") else None,
            age=parse_age(row["Patient Age"]),
        )


def _patient(text: str, table: Path, line: int) -> str:
    """Return the id without leading zeros: 2017 and Kaggle pad it, 2020 does not."""
    plain = text.strip()
    if not plain:
        raise InputError(f"{table}, line {line}: no Patient ID")
    return str(int(plain)) if plain.isdigit() else plain


def findings(text: str, separator: str, labels: Iterable[str], where: str) -> dict[str, int | None]:
    """Return 1 or 0 for every label from findings joined by a separator; findings not named are negative.

    Raises:
        InputError: a finding that is unknown, or not among the labels; `where` names file and line.
    """
    values: dict[str, int | None] = dict.fromkeys(labels, 0)
    for part in text.split(separator):
        if not part.strip():
            continue
        name = names.known(part)
        if name not in values:
            raise InputError(f"{where}: unknown finding {part.strip()!r}; known here are {', '.join(values)}")
        values[name] = 1
    return values


def parse_age(text: str) -> float | None:
    """Return an age in years from 58, 58.5, 058Y, 060M (months), 003W or 001D; None where blank, odd or above 120."""
    match = _AGE.fullmatch(text.strip())
    if match is None:
        return None
    years = float(match[1]) * _YEARS[match[2].upper()]
    return years if years <= OLDEST else None


def _splits(config: NihConfig, root: Path, rows: dict[str, Sample]) -> tuple[dict[str, str], list[str]]:
    """Return image name -> split, and the names that no list holds."""
    if config.splits == "random":
        patients = [str(sample.patient_id) for sample in rows.values()]
        cut = cut_by_patient(
            patients, config.seed, val_fraction=config.val_fraction, test_fraction=config.test_fraction
        )
        return dict(zip(rows, cut, strict=True)), []
    if config.splits == "official":
        given = {"train": root / "train_val_list.txt", "test": root / "test_list.txt"}
        absent = [path.name for path in given.values() if not path.is_file()]
        if absent:
            raise InputError(f"{root}: no {', '.join(absent)}; splits=official needs both lists (or --splits random)")
    else:
        chosen = {"train": config.train_list, "val": config.val_list, "test": config.test_list}
        given = {split: Path(path) for split, path in chosen.items() if path is not None}
        if "train" not in given:
            raise InputError("splits=list needs --train_list FILE (and --val_list, --test_list)")
    lists = {split: read_names(path) for split, path in given.items()}
    for first in lists:
        for second in lists:
            both = in_both(lists[first], lists[second]) if first < second else []
            if both:
                raise InputError(
                    f"{len(both)} images are in both {given[first]} and {given[second]} (first: {both[0]})"
                )
    split_of = {name: split for split, listed in lists.items() for name in listed if name in rows}
    if config.splits == "official":
        train = [name for name, split in split_of.items() if split == "train"]
        val = draw_groups([str(rows[name].patient_id) for name in train], config.val_fraction, config.seed)
        split_of |= {name: "val" for name in train if rows[name].patient_id in val}
    return split_of, sorted(set(rows) - set(split_of))


def read_boxes(root: Path, files: dict[str, str]) -> list[tuple[str, str, float, float, float, float]] | None:
    """Return (source, label, x, y, width, height), pixels of the 1024 x 1024 image; None without BBox_List_2017.csv."""
    path = root / "BBox_List_2017.csv"
    if not path.is_file():
        return None
    boxes = []
    for line, row in read_table(path, ("Image Index", "Finding Label")):
        cells = list(row.values())
        label = names.known(cells[1])
        if label is None:
            raise InputError(f"{path}, line {line}: unknown finding {cells[1]!r}")
        try:
            x, y, width, height = (float(cell) for cell in cells[2:6])
        except ValueError as error:
            raise InputError(f"{path}, line {line}: a box needs four numbers ({error})") from error
        name = cells[0].strip()
        if name in files:
            boxes.append((files[name], label, x, y, width, height))
    return boxes
