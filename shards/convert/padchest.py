"""PadChest (Bustos et al., Medical Image Analysis 2020): 16-bit PNG files and a table of findings in English."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from shards import labels as names
from shards.convert import cells
from shards.convert.about import About
from shards.convert.config import DrawnSplits, path_field
from shards.convert.delimited import read_table
from shards.convert.opener import FileOpener
from shards.convert.plan import Plan, build
from shards.convert.readings import unite
from shards.convert.rows import Gathered, gather, split_off, split_off_views
from shards.convert.sample import Sample
from shards.convert.sources import find_one, folder, with_files
from shards.convert.splits import with_drawn_splits
from shards.errors import InputError

ABOUT = About(
    licence="PadChest Dataset Research Use Agreement: research only, no redistribution",
    citation="""@article{bustos2020padchest,
  author = {Bustos, Aurelia and Pertusa, Antonio and Salinas, Jose-Maria and de la Iglesia-Vaya, Maria},
  title = {PadChest: A large chest x-ray image dataset with multi-label annotated reports},
  journal = {Medical Image Analysis},
  volume = {66},
  pages = {101797},
  year = {2020}
}""",
    home="https://bimcv.cipf.es/bimcv-projects/padchest/",
)
COLUMNS = ("ImageID", "ImageDir", "StudyDate_DICOM", "StudyID", "PatientID", "PatientBirth", "PatientSex_DICOM")
COLUMNS += ("Projection", "MethodLabel", "Labels")
GROUPS: dict[str, tuple[str, ...]] = {
    "air_trapping": ("air trapping",),
    "aortic_atheromatosis": ("aortic atheromatosis",),
    "aortic_elongation": ("aortic elongation",),
    "atelectasis": ("atelectasis",),
    "bronchiectasis": ("bronchiectasis",),
    "cardiomegaly": ("cardiomegaly",),
    "consolidation": ("consolidation", "air bronchogram"),
    "costophrenic_angle_blunting": ("costophrenic angle blunting",),
    "edema": ("edema",),
    "emphysema": ("emphysema",),
    "fibrosis": ("fibrosis",),
    "flattened_diaphragm": ("flattened diaphragm",),
    "fracture": ("fracture",),
    "granuloma": ("granuloma",),
    "hemidiaphragm_elevation": ("hemidiaphragm elevation",),
    "hernia": ("hernia",),
    "hilar_enlargement": ("hilar enlargement", "adenopathy", "pulmonary artery enlargement"),
    "infiltration": (
        "infiltration", "infiltrates", "interstitial pattern", "ground glass pattern", "alveolar pattern",
        "consolidation", "air bronchogram",
    ),
    "mass": ("mass",),
    "nodule": ("nodule",),
    "pleural_effusion": ("effusion",),
    "pleural_thickening": ("pleural thickening",),
    "pneumonia": ("pneumonia",),
    "pneumothorax": ("pneumothorax",),
    "scoliosis": ("scoliosis",),
    "support_devices": ("device", "pacemaker"),
    "tube": ("tube",),
    "tuberculosis": ("tuberculosis",),
}  # fmt: skip
"""What a published name contains where it counts for a group, as torchxrayvision (1.5) groups them. `tube` counts there
where a name ends with it."""
_VIEWS = {"PA": "PA", "AP": "AP", "AP_HORIZONTAL": "AP", "L": "LATERAL"}

UNWANTED = "unwanted"
"""Column beside the samples: why an image is left out."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(DrawnSplits):
    """PadChest: the ImageDir folders (or all images in one) and PADCHEST_chest_x_ray_images_labels_160K_*.csv(.gz)."""

    table: str | None = path_field()
    """The table; None: the one found in src."""
    findings: Literal["torchxrayvision", "published"] = "torchxrayvision"
    """torchxrayvision: its 28 groups, so that labels equal those its models were trained with (a pericardial effusion
    counts as effusion, a pseudonodule as nodule, subcutaneous emphysema as emphysema); published: every one of the 193
    names is a label of its own."""
    views: Literal["frontal", "all"] = "frontal"
    """frontal (PA, AP and AP_horizontal), or all (with laterals, rib views and unknown ones)."""
    physician_only: bool = False
    """Keep only images labelled by physicians (27,593), not those labelled by a network from the reports."""


def plan(config: Config) -> Plan:
    """Return the plan of a PadChest conversion.

    Raises:
        InputError: the table or a column is missing, a value is not allowed, or rows and files do not match.
    """
    root = folder(config.src)
    table = (
        Path(config.table) if config.table else find_one(root, ["PADCHEST_chest_x_ray_images_labels_*.csv"], "table")
    )
    labels = [*names.PADCHEST, "no_finding"] if config.findings == "torchxrayvision" else _published(table)
    rows = unite(gather(_samples(table, config, labels), labels, [UNWANTED]), where=table.name)
    rows, excluded = with_files(rows, root, (".png",), table=table.name, allow_missing=config.allow_missing)
    rows, unwanted = split_off(rows, UNWANTED)
    excluded.append(unwanted)
    if config.views == "frontal":
        rows, others = split_off_views(rows)
        excluded.append(others)
    rows = with_drawn_splits(rows, config)
    return build(
        Gathered(rows),
        name="padchest",
        source="PadChest (Bustos et al., Medical Image Analysis 2020)",
        about=ABOUT,
        labels=labels,
        split_scheme="random",
        split_detail=config.split_detail(),
        opener=FileOpener(str(root)),
        excluded=excluded,
    )


def parts(text: str, where: str) -> list[str]:
    """Return the published names of a cell, blanks around them removed and empty entries left out."""
    try:
        return [" ".join(part.split()) for part in cells.parts(text, "|")]
    except ValueError as error:
        raise InputError(f"{where}: column Labels: {error}") from error


@functools.cache
def groups_of(name: str) -> frozenset[str]:
    """Return the groups that a published name counts for."""
    found = {group for group, fragments in GROUPS.items() if any(part in name for part in fragments)}
    if "tube" in found and not name.endswith("tube"):
        found.discard("tube")
    if name.endswith("stent"):
        found.add("tube")
    return frozenset(found | ({"no_finding"} if name == "normal" else set()))


def _published(table: Path) -> list[str]:
    """Return every name that occurs, as a label."""
    found: set[str] = set()
    for line, row in read_table(table, COLUMNS):
        found.update(_label_of(part) for part in parts(row["Labels"], f"{table}, line {line}"))
    return sorted(found)


@functools.cache
def _label_of(name: str) -> str:
    return names.known(name) or names.check_name(names.snake(name))


def _samples(table: Path, config: Config, labels: list[str]) -> Iterator[Sample]:
    flat = _is_flat(folder(config.src), table)
    for line, row in read_table(table, COLUMNS):
        where = f"{table}, line {line}"
        image = row["ImageID"].strip()
        directory = cells.patient(row["ImageDir"])  # a whole number, also where written as 12.0
        source = image if flat or directory is None else f"{directory}/{image}"
        patient = cells.patient(row["PatientID"])
        if not image or patient is None:
            raise InputError(f"{where}: ImageID or PatientID is empty")
        found: set[str] = set()
        for name in parts(row["Labels"], where):
            found |= groups_of(name) if config.findings == "torchxrayvision" else {_label_of(name)}
        yield Sample(
            source=source,
            key=image.removesuffix(".png"),
            split="",
            patient_id=patient,
            study_id=cells.patient(row["StudyID"]),
            labels={label: int(label in found) for label in labels},
            view=_VIEWS.get(row["Projection"].strip().upper()),
            sex=cells.sex(row["PatientSex_DICOM"]),
            age=_age(row),
            beside={UNWANTED: _unwanted(row, config)},
        )


def _unwanted(row: dict[str, str], config: Config) -> str | None:
    """Return why the image is left out; None: it is not."""
    if cells.blank(row["Labels"]):
        return "no labels"
    if row["Projection"].strip().upper() == "EXCLUDE":
        return "excluded by its authors (Projection EXCLUDE)"
    if config.physician_only and row["MethodLabel"].strip().lower() != "physician":
        return "not labelled by a physician (physician_only)"
    return None


def _age(row: dict[str, str]) -> float | None:
    """Return the years between birth and study; None where either is blank or the difference is no person's age."""
    try:
        years = int(row["StudyDate_DICOM"][:4]) - float(row["PatientBirth"])
    except ValueError:
        return None
    return years if 0 <= years <= cells.OLDEST else None


def _is_flat(root: Path, table: Path) -> bool:
    """Whether all images lie in one folder, as in the 224-pixel copy, instead of the published ImageDir folders."""
    _, row = next(read_table(table, COLUMNS), (0, None))
    return row is not None and not any(path.is_dir() and path.name.isdigit() for path in root.iterdir())
