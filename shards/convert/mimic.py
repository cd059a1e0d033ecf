"""MIMIC-CXR-JPG (Johnson et al., 2019), versions 2.x: JPEG files, one row of labels per study, official splits."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from shards.convert import cells
from shards.convert.about import About
from shards.convert.chexpert import LABELS, observation_columns, observations
from shards.convert.config import ConvertConfig
from shards.convert.delimited import read_table
from shards.convert.opener import FileOpener
from shards.convert.plan import Plan, build
from shards.convert.readings import unite
from shards.convert.rows import Gathered, gather, split_off_views
from shards.convert.sample import Sample
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
Labels = dict[str, int | None]


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
        InputError: a table or column is missing, a value cannot be, or rows and files do not match.
    """
    root = folder(config.src)
    facts = find_one(root, ["mimic-cxr-2*-metadata.csv"], "table of images")
    splits = _splits(find_one(root, ["mimic-cxr-2*-split.csv"], "table of splits"))
    labels = _labels(find_one(root, [f"mimic-cxr-2*-{config.labeler}.csv"], "table of labels"))
    unlabelled: set[str] = set()
    rows = unite(gather(_samples(facts, splits, labels, unlabelled), LABELS), where=facts.name)
    rows, excluded = with_files(
        rows, root, (".jpg", ".jpeg"), table=facts.name, allow_missing=config.allow_missing,
        wanted=lambda name: name.split("/")[0] == "files",
    )  # fmt: skip
    if config.views == "frontal":
        rows, laterals = split_off_views(rows)
        excluded.append(laterals)
    told = f"{len(unlabelled)} studies have no row in the {config.labeler} table: their labels are null"
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


def _splits(table: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for line, row in read_table(table, ("dicom_id", "split")):
        split = row["split"].strip().lower()
        if split not in SPLITS:
            raise InputError(f"{table}, line {line}: split {split!r}; allowed are {', '.join(SPLITS)}")
        found[row["dicom_id"].strip()] = SPLITS[split]
    return found


def _labels(table: Path) -> dict[str, Labels]:
    """Return the labels of every study."""
    found: dict[str, Labels] = {}
    columns: dict[str, str] | None = None
    for line, row in read_table(table, ("subject_id", "study_id")):
        columns = columns or observation_columns(row, table)
        study, labels = row["study_id"].strip(), observations(row, columns, f"{table}, line {line}")
        if found.setdefault(study, labels) != labels:
            raise InputError(f"{table}, line {line}: study {study} has another row with other labels")
    return found


def _samples(table: Path, splits: dict[str, str], labels: dict[str, Labels], unlabelled: set[str]) -> Iterator[Sample]:
    """Yield the images; `source` is built from the ids, as the published folders are."""
    for line, row in read_table(table, ("dicom_id", "subject_id", "study_id", "ViewPosition")):
        image, study = row["dicom_id"].strip(), row["study_id"].strip()
        patient = cells.patient(row["subject_id"])
        if not image or not study or patient is None:
            raise InputError(f"{table}, line {line}: dicom_id, study_id or subject_id is empty")
        if image not in splits:
            raise InputError(f"{table}, line {line}: image {image} is not in the table of splits")
        if study not in labels:
            unlabelled.add(study)
        yield Sample(
            source=f"files/p{patient[:2]}/p{patient}/s{study}/{image}.jpg",
            key=image,
            split=splits[image],
            patient_id=patient,
            study_id=study,
            labels=labels.get(study, {}),
            view=cells.view(row["ViewPosition"]),
        )
