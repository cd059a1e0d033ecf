"""VinDr-CXR (Nguyen et al., Scientific Data 2022), as PhysioNet ships it, and its competition form VinBigData (Kaggle).

Several radiologists read every train image; the test images of PhysioNet carry their consensus.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from shards import labels as names
from shards.convert import cells
from shards.convert.about import About
from shards.convert.boxes import SourceBox, gather_boxes, renamed
from shards.convert.config import DrawnSplits
from shards.convert.delimited import read_table
from shards.convert.inputs import note
from shards.convert.opener import FileOpener
from shards.convert.plan import Plan, build
from shards.convert.readings import READER, by_reader, unite
from shards.convert.rows import Gathered, gather, place, with_column
from shards.convert.sample import Sample
from shards.convert.sources import IMAGE_ENDINGS, find_one, folder, with_files
from shards.convert.splits import cut_rows, draw_rows
from shards.errors import InputError
from shards.format import SPLITS

ABOUT = About(
    licence="PhysioNet Credentialed Health Data License 1.5.0; on Kaggle the rules of the competition",
    citation="""@article{nguyen2022vindrcxr,
  author = {Nguyen, Ha Q. and Lam, Khanh and Le, Linh T. and Pham, Hieu H. and Tran, Dat Q. and others},
  title = {VinDr-CXR: An open dataset of chest X-rays with radiologist's annotations},
  journal = {Scientific Data},
  volume = {9},
  pages = {429},
  year = {2022}
}""",
    home="https://physionet.org/content/vindr-cxr/",
)
_ENDINGS = (*IMAGE_ENDINGS, ".dicom")
_CORNERS = ("x_min", "y_min", "x_max", "y_max")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(DrawnSplits):
    """VinDr-CXR: train/, test/ and annotations/ (PhysioNet), or train/ and train.csv (Kaggle)."""

    readers: Literal["majority", "any", "all"] = "any"
    """How the radiologists of a train image are joined: any (a finding of one of them counts, as in the competition),
    majority (what more than half say, else -1), or all (only what all say)."""


def plan(config: Config) -> Plan:
    """Return the plan of a VinDr-CXR conversion.

    Raises:
        InputError: a table or column is missing, a finding is unknown, or rows and files do not match.
    """
    root = folder(config.src)
    tables = {split: root / "annotations" / f"image_labels_{split}.csv" for split in ("train", "test")}
    tables = {split: path for split, path in tables.items() if path.is_file()}
    if tables:
        labels, rows, where = _physionet(tables, config.readers)
        boxes = gather_boxes(_boxes([root / "annotations" / f"annotations_{split}.csv" for split in tables]))
    else:
        table = find_one(root, ["train.csv"], "annotations/image_labels_train.csv, nor Kaggle's table")
        labels, rows, where = _kaggle(table, config.readers)
        boxes = gather_boxes(_boxes([table]))
    wanted = set(tables) or {"train"}
    rows, excluded = with_files(
        rows, root, _ENDINGS, table=where, allow_missing=config.allow_missing, any_ending=True,
        wanted=lambda name: name.split("/")[0] in wanted,
    )  # fmt: skip
    rows = with_column(rows, "split", _splits(rows, config, official="test" in tables))
    return build(
        Gathered(rows),
        name="vindr",
        source="VinDr-CXR (Nguyen et al., Scientific Data 2022)",
        about=ABOUT,
        labels=labels,
        split_scheme="official" if "test" in tables else "random",
        split_detail=_detail(config, official="test" in tables),
        opener=FileOpener(str(root)),
        excluded=excluded,
        boxes=renamed(boxes, rows["key"], rows["source"]),
        notes=["no patient ids in VinDr-CXR: every image counts as its own patient"],
    )


def _physionet(tables: dict[str, Path], readers: str) -> tuple[list[str], pa.Table, str]:
    labels = [*names.VINDR, "no_finding"]
    parts = []
    for split, table in tables.items():
        rows = gather(_label_rows(table, split, labels), labels)
        parts.append(unite(rows, where=table.name, readers=readers if split == "train" else None))
    return labels, pa.concat_tables(parts), " + ".join(path.name for path in tables.values())


def _label_rows(table: Path, split: str, labels: list[str]) -> Iterator[Sample]:
    """Yield a row of 0 and 1 per reader (train) or image (test)."""
    columns: dict[str, str] | None = None
    for line, row in read_table(table, ("image_id",)):
        where = f"{table}, line {line}"
        if columns is None:
            columns = {name: label for name in row if (label := names.known(name)) is not None}
            missing = [label for label in labels if label not in columns.values()]
            other = [name for name in row if name not in columns and name not in ("image_id", "rad_id", "")]
            if missing or other:
                odd = f"no column for {', '.join(missing)}" if missing else f"unknown column {', '.join(other)}"
                raise InputError(f"{table}: {odd}; its columns are {', '.join(row)}")
        try:
            values = {label: cells.label(row[name]) for name, label in columns.items()}
        except ValueError as error:
            raise InputError(f"{where}: a label is {error}; allowed are 0 and 1") from error
        yield _sample(row["image_id"].strip(), split, {label: value or 0 for label, value in values.items()}, where)


def _kaggle(table: Path, readers: str) -> tuple[list[str], pa.Table, str]:
    """Rows are boxes: those of one reader are united, then the readers joined."""
    found = {_finding(row["class_name"], f"{table}, line {line}") for line, row in read_table(table, ("class_name",))}
    labels = [label for label in (*names.VINDR, "no_finding") if label in found]
    rows = gather(_box_rows(table, labels), labels, [READER])
    rows = unite(rows, by=by_reader(rows), where=f"{table.name} (rows of one reader)", findings=True)
    return labels, unite(rows, where=table.name, readers=readers), table.name


def _box_rows(table: Path, labels: list[str]) -> Iterator[Sample]:
    for line, row in read_table(table, ("image_id", "class_name", "rad_id")):
        where = f"{table}, line {line}"
        named = _finding(row["class_name"], where)
        values: dict[str, int | None] = {label: int(label == named) for label in labels}
        yield _sample(row["image_id"].strip(), "train", values, where, row["rad_id"].strip())


def _finding(text: str, where: str) -> str:
    label = names.known(text)
    if label is None:
        raise InputError(f"{where}: unknown finding {text!r}; the findings of VinDr-CXR are {', '.join(names.VINDR)}")
    return label


def _sample(image: str, split: str, labels: dict[str, int | None], where: str, reader: str | None = None) -> Sample:
    if not image:
        raise InputError(f"{where}: image_id is empty")
    return Sample(source=f"{split}/{image}", key=image, split=split, labels=labels, beside={READER: reader})


def _splits(rows: pa.Table, config: DrawnSplits, *, official: bool) -> pa.Array:
    """Return the published splits with val cut from train, or splits drawn by image."""
    fractions = {"val_fraction": config.val_fraction, "test_fraction": config.test_fraction}
    if not official:
        return cut_rows(rows["key"], config.seed, **fractions)
    codes = place(rows["split"], pa.array(SPLITS)).to_numpy(zero_copy_only=False).astype(np.int64)
    train = codes == SPLITS.index("train")
    val = draw_rows(rows["key"].filter(pa.array(train)), config.val_fraction, config.seed)
    codes[np.flatnonzero(train)[val]] = SPLITS.index("val")
    return pa.array(SPLITS).take(pa.array(codes))


def _detail(config: Config, *, official: bool) -> dict[str, Any]:
    detail = config.split_detail() | {"readers": config.readers}
    if official:
        del detail["test_fraction"]
    return detail


def _boxes(tables: list[Path]) -> Iterator[SourceBox]:
    """Yield (image id, label, x, y, width, height) in source pixels, of every reader."""
    for table in tables:
        note(table)
        if not table.is_file():
            continue
        for line, row in read_table(table, ("image_id", "class_name", *_CORNERS)):
            if cells.blank(row["x_min"]):
                continue
            where = f"{table}, line {line}"
            try:
                left, top, right, bottom = (float(row[name]) for name in _CORNERS)
            except ValueError as error:
                raise InputError(f"{where}: a box needs four numbers ({error})") from error
            label = _finding(row["class_name"], where)
            yield row["image_id"].strip(), label, left, top, right - left, bottom - top
