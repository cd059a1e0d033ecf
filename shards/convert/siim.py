"""SIIM-ACR Pneumothorax Segmentation (2019): DICOM files in nested folders, a row of run lengths per region."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute

from shards.convert.about import About
from shards.convert.config import DrawnSplits
from shards.convert.delimited import read_table
from shards.convert.dicom import require
from shards.convert.dicom_headers import with_headers
from shards.convert.opener import FileOpener
from shards.convert.plan import Plan, build
from shards.convert.readings import unite
from shards.convert.rows import (
    Gathered,
    among,
    each,
    first_of_each,
    gather,
    keep,
    left_out,
    looked_up,
    place,
    strings,
    with_column,
)
from shards.convert.sample import Sample
from shards.convert.sources import find_one, folder, list_files, reconcile
from shards.convert.splits import with_drawn_splits
from shards.errors import InputError

ABOUT = About(
    licence="rules of the Kaggle competition: non-commercial and academic use",
    citation="""@misc{siim2019pneumothorax,
  author = {{Society for Imaging Informatics in Medicine} and {American College of Radiology}},
  title = {SIIM-ACR Pneumothorax Segmentation},
  howpublished = {Kaggle competition},
  year = {2019}
}""",
    home="https://www.kaggle.com/c/siim-acr-pneumothorax-segmentation",
)
LABELS = ("pneumothorax",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(DrawnSplits):
    """SIIM-ACR pneumothorax: train-rle.csv (or stage_2_train.csv) and DICOM files in any folders below src."""


def plan(config: Config) -> Plan:
    """Return the plan of a SIIM-ACR pneumothorax conversion; files without a row (the unlabelled test set) are listed.

    Raises:
        InputError: the table or a column is missing, a value cannot be, or rows have no file.
    """
    require()
    root = folder(config.src)
    table = find_one(root, ["train-rle.csv", "stage_2_train.csv", "*train-rle.csv"], "table of regions")
    rows = unite(gather(_samples(table), LABELS), where=table.name, findings=True)
    paths, odd = list_files(root, (".dcm",))
    images = strings(path.rpartition("/")[2].removesuffix(".dcm") for path in each(paths))
    first = keep(pa.table([paths, images], ["path", "image"]), first_of_each(images))
    paths, images = first["path"], first["image"]
    listed = images.filter(pa.array(among(images, rows["source"])))
    unpaired = reconcile(rows["source"], listed, table=table.name, allow_missing=config.allow_missing, odd=odd)
    unlisted = paths.filter(pa.array(~among(images, rows["source"])))
    excluded = [unpaired, left_out(unlisted, f"no row in {table.name}")]
    rows = keep(rows, among(rows["source"], images))
    rows = with_column(rows, "source", looked_up(paths, place(rows["source"], images)))
    rows = with_headers(rows, root, ("patient_id", "view", "sex", "age"))
    rows = with_drawn_splits(rows, config)
    return build(
        Gathered(rows),
        name="siim",
        source="SIIM-ACR Pneumothorax Segmentation (2019)",
        about=ABOUT,
        labels=LABELS,
        split_scheme="random",
        split_detail=config.split_detail(),
        opener=FileOpener(str(root)),
        excluded=excluded,
        notes=["the images are NIH ChestX-ray14's under other names: an encoder pretrained on NIH may have seen them"],
    )


def _samples(table: Path) -> Iterator[Sample]:
    for line, row in read_table(table, ("ImageId", "EncodedPixels")):
        image, region = row["ImageId"].strip(), row["EncodedPixels"].strip()
        if not image or not region:
            raise InputError(f"{table}, line {line}: ImageId or EncodedPixels is empty")
        yield Sample(source=image, key=image, split="", labels={"pneumothorax": int(region != "-1")})
