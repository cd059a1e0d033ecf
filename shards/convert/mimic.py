"""MIMIC-CXR-JPG (Johnson et al., 2019), versions 2.x: JPEG files, one row of labels per study, official splits."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pyarrow as pa

from shards.convert import cells
from shards.convert.about import About
from shards.convert.chexpert import LABELS, observation_columns, observations
from shards.convert.config import ConvertConfig
from shards.convert.delimited import read_table
from shards.convert.opener import FileOpener
from shards.convert.plan import Plan, build
from shards.convert.readings import unite
from shards.convert.rows import Gathered, first_of_each, gather, split_off_views
from shards.convert.sample import Sample
from shards.convert.side_table import Entry, SideTable, labels_schema, side_table
from shards.convert.sources import find_one, folder, with_files
from shards.errors import InputError

ABOUT = About(
    licence="PhysioNet Credentialed Health Data License 1.5.0: no redistribution",
    citation="""@article{johnson2019mimiccxrjpg,
  author = {Johnson, Alistair E. W. and Pollard, Tom J. and Greenbaum, Nathaniel R. and Lungren, Matthew P. and others},
  title = {MIMIC-CXR-JPG, a large publicly available database of labeled chest radiographs},
  journal = {arXiv:1901.07042},
  year = {2019}
}""",
    home="https://physionet.org/content/mimic-cxr-jpg/",
)
SPLITS = {"train": "train", "validate": "val", "test": "test"}
IMAGE = "dicom_id"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ConvertConfig):
    """MIMIC-CXR-JPG as PhysioNet ships it: files/ and the mimic-cxr-2*.csv.gz tables."""

    labeler: Literal["chexpert", "negbio"] = "chexpert"
    """Which of the two published label tables."""
    views: Literal["frontal", "all"] = "frontal"
    """frontal (PA and AP), or all (with laterals and images without a view)."""


def plan(config: Config) -> Plan:
    """Return the plan of a MIMIC-CXR-JPG conversion.

    Raises:
        InputError: a table or column is missing, a value is not allowed, or rows and files do not match.
    """
    root = folder(config.src)
    facts = find_one(root, ["mimic-cxr-2*-metadata.csv"], "table of images")
    splits = _splits(find_one(root, ["mimic-cxr-2*-split.csv"], "table of splits"))
    labels = _labels(find_one(root, [f"mimic-cxr-2*-{config.labeler}.csv"], "table of labels"))
    rows, unlabelled = _joined(gather(_samples(facts), LABELS, [IMAGE]), facts, splits, labels)
    rows = unite(rows, where=facts.name)
    rows, excluded = with_files(
        rows, root, (".jpg", ".jpeg"), table=facts.name, allow_missing=config.allow_missing,
        wanted=lambda name: name.split("/")[0] == "files",
    )  # fmt: skip
    if config.views == "frontal":
        rows, laterals = split_off_views(rows)
        excluded.append(laterals)
    told = f"studies without a row in the {config.labeler} table, whose labels are null: {unlabelled}"
    return build(
        Gathered(rows),
        name="mimic",
        source="MIMIC-CXR-JPG (Johnson et al., 2019)",
        about=ABOUT,
        labels=LABELS,
        split_scheme="official",
        split_detail={"labeler": config.labeler},
        opener=FileOpener(str(root)),
        excluded=excluded,
        notes=[told] if unlabelled else [],
    )


def _splits(table: Path) -> SideTable:
    """Return the split of every image."""

    def entries() -> Iterator[Entry]:
        for line, row in read_table(table, ("dicom_id", "split")):
            split = row["split"].strip().lower()
            if split not in SPLITS:
                raise InputError(f"{table}, line {line}: split {split!r}; allowed are {', '.join(SPLITS)}")
            yield line, row["dicom_id"].strip(), (SPLITS[split],)

    columns = pa.schema([("split", pa.string())])
    return side_table(table, entries(), columns, named="image", other="another split")


def _labels(table: Path) -> SideTable:
    """Return the labels of every study."""

    def entries() -> Iterator[Entry]:
        columns: dict[str, str] | None = None
        for line, row in read_table(table, ("subject_id", "study_id")):
            columns = columns or observation_columns(row, table)
            labels = observations(row, columns, f"{table}, line {line}")
            yield line, row["study_id"].strip(), [labels[label] for label in LABELS]

    return side_table(table, entries(), labels_schema(LABELS), named="study", other="other labels")


def _joined(rows: pa.Table, table: Path, splits: SideTable, labels: SideTable) -> tuple[pa.Table, int]:
    """Return the images with their splits and the labels of their studies, and how many studies have none."""
    rows, known = splits.joined(rows, IMAGE)
    if not known.all():
        lost = rows[IMAGE].filter(pa.array(~known))
        raise InputError(f"{table}: {len(lost)} images are not in {splits.path.name} (first: {lost[0].as_py()})")
    rows, labelled = labels.joined(rows, "study_id")
    return rows, int(first_of_each(rows["study_id"].filter(pa.array(~labelled))).sum())


def _samples(table: Path) -> Iterator[Sample]:
    """Yield the images; `source` is built from the ids, as the published folders are."""
    for line, row in read_table(table, ("dicom_id", "subject_id", "study_id", "ViewPosition")):
        image, study = row["dicom_id"].strip(), row["study_id"].strip()
        patient = cells.patient(row["subject_id"])
        if not image or not study or patient is None:
            raise InputError(f"{table}, line {line}: dicom_id, study_id or subject_id is empty")
        yield Sample(
            source=f"files/p{patient[:2]}/p{patient}/s{study}/{image}.jpg",
            key=image,
            split="",
            patient_id=patient,
            study_id=study,
            view=cells.view(row["ViewPosition"]),
            beside={IMAGE: image},
        )
