"""NIH ChestX-ray14 (Wang et al., CVPR 2017): the 2017 and 2020 tables, the full download or Kaggle's sample."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from shards import labels as names
from shards.convert import cells
from shards.convert.about import About
from shards.convert.boxes import SourceBox, gather_boxes, renamed
from shards.convert.config import NihConfig
from shards.convert.delimited import read_names, read_table
from shards.convert.plan import FileOpener, Plan, build
from shards.convert.readings import unite
from shards.convert.rows import (
    Gathered,
    among,
    first_of_each,
    gather,
    keep,
    left_out,
    looked_up,
    one,
    place,
    with_column,
)
from shards.convert.sample import Sample
from shards.convert.sources import folder, list_files, reconcile
from shards.convert.spill import stored_column
from shards.convert.splits import cut_rows, draw_rows
from shards.errors import InputError
from shards.format import SPLITS

pc: Any = pyarrow.compute  # its functions are made at import, unseen by type checkers

ABOUT = About(
    licence="free to use with attribution to the NIH Clinical Center",
    citation="""@inproceedings{wang2017chestxray8,
  author = {Wang, Xiaosong and Peng, Yifan and Lu, Le and Lu, Zhiyong and Bagheri, Mohammadhadi and Summers, Ronald M.},
  title = {ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks on Weakly-Supervised Classification and
           Localization of Common Thorax Diseases},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition},
  pages = {3462--3471},
  year = {2017}
}""",
    home="https://nihcc.app.box.com/v/ChestXray-NIHCC",
)
TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv", "sample_labels.csv")
LABELS = (*names.NIH, "no_finding")
COLUMNS = ("Image Index", "Finding Labels", "Patient ID", "Patient Age", "Patient Gender", "View Position")


def plan_nih(config: NihConfig) -> Plan:
    """Return the plan of an NIH conversion.

    Raises:
        InputError: a table, list or column is missing, a finding is unknown, or rows and files do not match.
    """
    root = folder(config.src)
    table = find_table(root, config.table)
    rows = unite(gather(read_rows(table), LABELS), where=table.name, findings=True)
    paths, odd = list_files(root, (".png", ".jpg", ".jpeg"))
    paths, bare, refused = _bare_names(paths)
    missing = reconcile(rows["source"], bare, table=table.name, allow_missing=config.allow_missing, odd=odd)
    at = pc.coalesce(looked_up(paths, place(missing["source"], bare)), missing["source"])
    excluded = [left_out(at, missing["reason"])]
    rows = keep(rows, among(rows["source"], bare))
    splits = _splits(config, root, rows)
    sources = looked_up(paths, place(rows["source"], bare))
    excluded.append(left_out(sources.filter(pc.is_null(splits)), "in none of the split lists"))
    boxes = read_boxes(root, paths, bare)
    rows = with_column(with_column(rows, "split", splits), "source", sources)
    rows = Gathered(keep(rows, one(splits.is_valid()).to_numpy(zero_copy_only=False)))
    del paths, bare, sources, splits
    return build(
        rows,
        name="nih",
        source="NIH ChestX-ray14 (Wang et al., CVPR 2017)",
        about=ABOUT,
        labels=LABELS,
        split_scheme=config.splits,
        split_detail={"val_fraction": config.val_fraction, "seed": config.seed} if config.splits != "list" else {},
        opener=FileOpener(str(root)),
        excluded=excluded,
        refused=refused,
        boxes=boxes,
    )


def _bare_names(paths: pa.ChunkedArray) -> tuple[pa.ChunkedArray, pa.ChunkedArray, list[tuple[str, str]]]:
    """Return paths and their file names, the first path of every name, and (path, reason) of the others."""
    bare = stored_column((pc.replace_substring_regex(some, "(?s)^.*/", "") for some in paths.chunks), pa.string())
    first = first_of_each(bare)
    if first.all():
        return paths, bare, []
    kept = keep(pa.table([paths, bare], ["path", "name"]), first)
    kept, kept_names = kept["path"], kept["name"]
    again = pa.array(~first)
    owners = looked_up(kept, place(bare.filter(again), kept_names))
    pairs = zip(paths.filter(again).to_pylist(), owners.to_pylist(), strict=True)
    return kept, kept_names, [(path, f"duplicate file name (taken by {owner})") for path, owner in pairs]


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
            age=cells.age(row["Patient Age"]),
        )


def _patient(text: str, table: Path, line: int) -> str:
    """Return the id without leading zeros: 2017 and Kaggle pad it, 2020 does not."""
    plain = text.strip()
    if not plain:
        raise InputError(f"{table}, line {line}: no Patient ID")
    return (plain.lstrip("0") or "0") if plain.isascii() and plain.isdecimal() else plain


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


def _splits(config: NihConfig, root: Path, rows: pa.Table) -> pa.ChunkedArray:
    """Return the split of every row, null where no list holds it."""
    if config.splits == "random":
        fractions = {"val_fraction": config.val_fraction, "test_fraction": config.test_fraction}
        return cut_rows(rows["patient_id"], config.seed, **fractions)
    if config.splits == "list":  # shards.convert.lists says which
        return looked_up(pa.array(["train"]), pa.array(np.zeros(rows.num_rows, dtype=np.int8)))
    if config.splits == "official":
        given = {"train": root / "train_val_list.txt", "test": root / "test_list.txt"}
        absent = [path.name for path in given.values() if not path.is_file()]
        if absent:
            raise InputError(f"{root}: no {', '.join(absent)}; splits=official needs both lists (or --splits random)")
    lists = {split: read_names(path) for split, path in given.items()}
    for first in lists:
        for second in lists:
            both = in_both(lists[first], lists[second]) if first < second else []
            if both:
                raise InputError(
                    f"{len(both)} images are in both {given[first]} and {given[second]} (first: {both[0]})"
                )
    codes = np.full(rows.num_rows, -1, dtype=np.int8)
    for split, listed in lists.items():
        codes[among(rows["source"], listed)] = SPLITS.index(split)
    if config.splits == "official":
        train = codes == SPLITS.index("train")
        val = draw_rows(rows["patient_id"].filter(pa.array(train)), config.val_fraction, config.seed)
        codes[np.flatnonzero(train)[val]] = SPLITS.index("val")
    return looked_up(pa.array(SPLITS), pa.array(codes, mask=codes < 0))


def in_both(first: pa.ChunkedArray, second: pa.ChunkedArray) -> list[str]:
    """Return the names found in both lists, sorted."""
    return sorted(set(first.filter(pa.array(among(first, second))).to_pylist()))


def read_boxes(root: Path, paths: pa.ChunkedArray, bare: pa.ChunkedArray) -> pa.Table | None:
    """Return the boxes by source, in pixels of the 1024 x 1024 image; None without BBox_List_2017.csv.

    `paths` are the image files and `bare` their names; boxes of other images are left out.
    """
    path = root / "BBox_List_2017.csv"
    if not path.is_file():
        return None
    return renamed(gather_boxes(_boxes(path)), bare, paths)


def _boxes(path: Path) -> Iterator[SourceBox]:
    for line, row in read_table(path, ("Image Index", "Finding Label")):
        cells = list(row.values())
        label = names.known(cells[1])
        if label is None:
            raise InputError(f"{path}, line {line}: unknown finding {cells[1]!r}")
        try:
            x, y, width, height = (float(cell) for cell in cells[2:6])
        except ValueError as error:
            raise InputError(f"{path}, line {line}: a box needs four numbers ({error})") from error
        yield cells[0].strip(), label, x, y, width, height
