"""RSNA Pneumonia Detection Challenge (Shih et al., Radiology: AI 2019): NIH images as DICOM, with new labels."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from shards.convert import cells
from shards.convert.about import About
from shards.convert.boxes import SourceBox, gather_boxes
from shards.convert.config import DrawnSplits, path_field
from shards.convert.delimited import read_table
from shards.convert.dicom import require
from shards.convert.dicom_headers import with_headers
from shards.convert.inputs import note
from shards.convert.opener import FileOpener
from shards.convert.plan import Plan, build
from shards.convert.readings import unite
from shards.convert.rows import Gathered, gather
from shards.convert.sample import Sample
from shards.convert.side_table import Entry, SideTable, labels_schema, side_table
from shards.convert.sources import find_one, folder, with_files
from shards.convert.splits import with_drawn_splits
from shards.errors import InputError

ABOUT = About(
    licence="rules of the Kaggle competition: non-commercial and academic use",
    citation="""@article{shih2019augmenting,
  author = {Shih, George and Wu, Carol C. and Halabi, Safwan S. and Kohli, Marc D. and others},
  title = {Augmenting the National Institutes of Health Chest Radiograph Dataset with Expert Annotations of Possible
           Pneumonia},
  journal = {Radiology: Artificial Intelligence},
  volume = {1},
  number = {1},
  pages = {e180041},
  year = {2019}
}""",
    home="https://www.rsna.org/rsnai/ai-image-challenge/rsna-pneumonia-detection-challenge-2018",
)
FOLDER = "stage_2_train_images"
LABELS = ("lung_opacity", "pneumonia", "no_finding")
CLASSES = {"Normal": 1, "No Lung Opacity / Not Normal": 0, "Lung Opacity": 0}
IMAGE = "patientId"
CORNERS = ("x", "y", "width", "height")
MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(DrawnSplits):
    """RSNA pneumonia as Kaggle ships it: stage_2_train_images/ and the stage_2_*.csv tables."""

    mapping: str | None = path_field()
    """The organisers' pneumonia-challenge-dataset-mappings_2018.json, which says which NIH image each one is, so that
    patients are NIH's. None: the one found in src; where there is none, every image counts as its own patient."""


def plan(config: Config) -> Plan:
    """Return the plan of an RSNA pneumonia conversion.

    Raises:
        InputError: a table or column is missing, a value is not allowed, or rows and files do not match.
    """
    require()
    root = folder(config.src)
    table = find_one(root, ["stage_2_train_labels.csv"], "table of labels")
    rows = gather(_samples(table), LABELS, [IMAGE])
    classes, patients = _classes(root / "stage_2_detailed_class_info.csv"), _nih_patients(config, root)
    if classes is not None:
        rows, _ = classes.joined(rows, IMAGE)
    if patients is not None:
        rows, known = patients.joined(rows, IMAGE)
        if not known.all():
            lost = rows[IMAGE].filter(pa.array(~known))
            raise InputError(f"{table}: {len(lost)} rows are not in {patients.path} (first: image {lost[0].as_py()})")
    rows = unite(rows, where=table.name)
    rows, excluded = with_files(
        rows, root, (".dcm",), table=table.name, allow_missing=config.allow_missing,
        wanted=lambda name: name.split("/")[0] == FOLDER,
    )  # fmt: skip
    rows = with_headers(rows, root, ("view", "sex", "age"))
    rows = with_drawn_splits(rows, config)
    warning = (
        "WARNING: these are NIH ChestX-ray14's images under other names, and without the organisers' mapping file "
        f"({MAPPING}) their patients are unknown: a patient may be in two splits, and an encoder pretrained on NIH has "
        "seen the test images"
    )
    return build(
        Gathered(rows),
        name="rsna",
        source="RSNA Pneumonia Detection Challenge (Shih et al., Radiology: AI 2019)",
        about=ABOUT,
        labels=LABELS,
        split_scheme="random",
        split_detail=config.split_detail() | {"patients": "nih" if patients else "unknown"},
        opener=FileOpener(str(root)),
        excluded=excluded,
        boxes=gather_boxes(_boxes(table)),
        notes=[] if patients else [warning],
    )


def _classes(path: Path) -> SideTable | None:
    """Return 1 of every image whose class is Normal, 0 of others; None without the table."""
    if not path.is_file():
        return None

    def entries() -> Iterator[Entry]:
        for line, row in read_table(path, ("patientId", "class")):
            kind = row["class"].strip()
            if kind not in CLASSES:
                raise InputError(f"{path}, line {line}: class {kind!r}; allowed are {', '.join(CLASSES)}")
            yield line, row["patientId"].strip(), (CLASSES[kind],)

    return side_table(path, entries(), labels_schema(["no_finding"]), named="image", other="another class")


def _nih_patients(config: Config, root: Path) -> SideTable | None:
    """Return NIH's patient of every image, from NIH's file name of it; None without the mapping file."""
    path = Path(config.mapping) if config.mapping else root / MAPPING
    note(path)
    if not path.is_file():
        if config.mapping:
            raise InputError(f"--mapping {path}: no such file")
        return None
    try:  # a file of 26,684 entries, whole: JSON cannot be read in parts
        entries = [
            (number, str(entry["subset_img_id"]), (str(int(str(entry["img_id"]).partition("_")[0])),))
            for number, entry in enumerate(json.loads(path.read_bytes()), start=1)
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not the organisers' mapping: a list with subset_img_id and img_id") from error
    columns = pa.schema([("patient_id", pa.string())])
    return side_table(path, entries, columns, named="image", other="another patient")


def _samples(table: Path) -> Iterator[Sample]:
    """Yield the rows, one per box or per image without one."""
    for line, row in read_table(table, ("patientId", *CORNERS, "Target")):
        where = f"{table}, line {line}"
        image, target = row["patientId"].strip(), row["Target"].strip()
        if not image or target not in ("0", "1"):
            raise InputError(f"{where}: patientId {image!r} and Target {target!r}; Target is 0 or 1")
        labels: dict[str, int | None] = {"lung_opacity": int(target), "pneumonia": int(target)}
        yield Sample(source=_source(image), key=image, split="", labels=labels, beside={IMAGE: image})


def _boxes(table: Path) -> Iterator[SourceBox]:
    """Yield the boxes of the same table."""
    for line, row in read_table(table, ("patientId", *CORNERS)):
        if not cells.blank(row["x"]):
            try:
                x, y, width, height = (float(row[name]) for name in CORNERS)
            except ValueError as error:
                raise InputError(f"{table}, line {line}: a box needs four numbers ({error})") from error
            yield _source(row["patientId"].strip()), "pneumonia", x, y, width, height


def _source(image: str) -> str:
    return f"{FOLDER}/{image}.dcm"
