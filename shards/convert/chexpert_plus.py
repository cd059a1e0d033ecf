"""CheXpert Plus (Chambon et al., 2024): CheXpert's images as PNG, demographics, and labels read from the reports."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute

from shards.convert import cells
from shards.convert.about import About
from shards.convert.chexpert import LABELS, observation_columns, observations
from shards.convert.config import ConvertConfig, later_field
from shards.convert.delimited import read_table
from shards.convert.inputs import note
from shards.convert.opener import FileOpener
from shards.convert.plan import Plan, build
from shards.convert.readings import unite
from shards.convert.rows import Gathered, gather, looked_up, one, split_off_views, with_column
from shards.convert.sample import Sample
from shards.convert.side_table import Entry, SideTable, labels_schema, side_table
from shards.convert.sources import IMAGE_ENDINGS, find_one, folder, with_files, without_ending
from shards.convert.splits import draw_rows
from shards.errors import InputError
from shards.ranges import SEEDS

pc: Any = pyarrow.compute  # its functions are made at import, unseen by type checkers

ABOUT = About(
    licence="Stanford University Dataset Research Use Agreement: no redistribution",
    citation="""@article{chambon2024chexpertplus,
  author = {Chambon, Pierre and Delbrouck, Jean-Benoit and Sounack, Thomas and Huang, Shih-Cheng and others},
  title = {CheXpert Plus: Augmenting a Large Chest X-ray Dataset with Text Radiology Reports, Patient Demographics and
           Additional Image Formats},
  journal = {arXiv:2405.19538},
  year = {2024}
}""",
    home="https://aimi.stanford.edu/datasets/chexpert-plus",
)
SPLITS = {"train": "train", "valid": "val"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ConvertConfig):
    """CheXpert Plus: df_chexpert_plus_*.csv, chexbert_labels/*_fixed.json and the images (in PNG/ or beside them)."""

    labels_from: Literal["impression", "findings", "report"] = "impression"
    """Section of the report that CheXbert read the labels from: chexbert_labels/SECTION_fixed.json."""
    views: Literal["frontal", "all"] = "frontal"
    """frontal, or all (with the laterals)."""
    valid_as: Literal["val", "test"] = later_field("val")
    """What the published valid images are: val; or test (there is no other), with val cut from train."""
    val_fraction: Annotated[float, "[0, 1)"] = later_field(0.05)
    """Fraction of train images cut off as val, by patient; used only with valid_as=test."""
    seed: Annotated[int, SEEDS] = later_field(0)
    """Seed of the cut."""


def plan(config: Config) -> Plan:
    """Return the plan of a CheXpert Plus conversion.

    Raises:
        InputError: a table or column is missing, a value is not allowed, or rows and files do not match.
    """
    root = folder(config.src)
    table = find_one(root, ["df_chexpert_plus_*.csv"], "table of images")
    listed = find_one(root, [f"chexbert_labels/{config.labels_from}_fixed.json"], "file of labels")
    labels = _labels(listed)
    rows, known = labels.joined(gather(_samples(table), LABELS), "source")
    unlabelled = int((~known).sum())
    images = next((root / name for name in ("PNG", "PNG/PNG", "PNGs", ".") if (root / name / "train").is_dir()), root)
    rows = unite(rows, where=table.name)
    rows, excluded = with_files(
        rows, images, IMAGE_ENDINGS, table=table.name, allow_missing=config.allow_missing, any_ending=True,
        wanted=lambda name: name.split("/")[0] in SPLITS,
    )  # fmt: skip
    if config.views == "frontal":
        rows, laterals = split_off_views(rows, keep_unknown=True)
        excluded.append(laterals)
    detail: dict[str, Any] = {"labels_from": config.labels_from}
    if config.valid_as == "test":
        rows = _valid_as_test(rows, config)
        detail |= {"valid_as": "test", "val_fraction": config.val_fraction, "seed": config.seed}
    told = f"images without a line in {listed.name}, whose labels are null: {unlabelled}"
    return build(
        Gathered(rows),
        name="chexpert_plus",
        source="CheXpert Plus (Chambon et al., 2024)",
        about=ABOUT,
        labels=LABELS,
        split_scheme="official",
        split_detail=detail,
        opener=FileOpener(str(images)),
        excluded=excluded,
        notes=[told] if unlabelled else [],
    )


def _valid_as_test(rows: pa.Table, config: Config) -> pa.Table:
    """Return rows with the valid images as test and some patients of train as val."""
    valid = one(pc.equal(rows["split"], "val")).to_numpy(zero_copy_only=False)
    codes = np.where(valid, 2, 0).astype(np.int8)
    train = rows["patient_id"].filter(pa.array(~valid))
    codes[~valid] = draw_rows(train, config.val_fraction, config.seed)
    return with_column(rows, "split", looked_up(pa.array(["train", "val", "test"]), pa.array(codes)))


def _labels(path: Path) -> SideTable:
    """Return the labels of every image (by its path without ending) from a file of one JSON object per line."""
    return side_table(path, _label_lines(path), labels_schema(LABELS), named="image", other="other labels")


def _label_lines(path: Path) -> Iterator[Entry]:
    columns: dict[str, str] | None = None
    note(path)
    with open(path, encoding="utf-8") as file:
        for line, text in enumerate(file, start=1):
            if not text.strip():
                continue
            where = f"{path}, line {line}"
            try:
                read = json.loads(text)
                row = {str(name): "" if value is None else str(value) for name, value in read.items()}
                image = without_ending(row["path_to_image"])
            except (ValueError, KeyError, AttributeError) as error:
                raise InputError(f"{where} is not an object with path_to_image and labels") from error
            columns = columns or observation_columns(row, path)
            try:
                labels = observations(row, columns, where)
            except KeyError as error:
                raise InputError(f"{where}: no label {error}") from error
            yield line, image, [labels[label] for label in LABELS]


def _samples(table: Path) -> Iterator[Sample]:
    """Yield the images; `source` has no ending yet, since the copies of the images differ in it."""
    required = ("path_to_image", "deid_patient_id", "frontal_lateral", "ap_pa", "age", "sex", "split")
    for line, row in read_table(table, required):
        where = f"{table}, line {line}"
        source = without_ending(row["path_to_image"].strip())
        folders, split = source.split("/"), row["split"].strip().lower()
        if len(folders) != 4 or split not in SPLITS:
            raise InputError(
                f"{where}: path_to_image {source!r} is not train/patientN/studyN/viewN, or split {split!r}"
            )
        view = row["ap_pa"].strip().upper()
        yield Sample(
            source=source,
            key="_".join(folders[1:]),
            split=SPLITS[split],
            patient_id=cells.patient(row["deid_patient_id"]) or folders[1],
            study_id=f"{folders[1]}_{folders[2]}",
            view="LATERAL" if row["frontal_lateral"].strip().lower() == "lateral" else cells.view(view),
            sex=cells.sex(row["sex"]),
            age=cells.age(row["age"]),
        )
