"""BRAX (Reis et al., Scientific Data 2022): Brazilian chest X-rays as PNG with CheXpert's 14 labels."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from shards.convert import cells
from shards.convert.about import About
from shards.convert.chexpert import LABELS, observation_columns, observations
from shards.convert.config import DrawnSplits
from shards.convert.delimited import read_table
from shards.convert.opener import FileOpener
from shards.convert.plan import Plan, build
from shards.convert.readings import unite
from shards.convert.rows import Gathered, gather, split_off_views
from shards.convert.sample import Sample
from shards.convert.sources import find_one, folder, with_files
from shards.convert.splits import with_drawn_splits
from shards.errors import InputError

ABOUT = About(
    licence="PhysioNet Credentialed Health Data License 1.5.0: no redistribution",
    citation="""@article{reis2022brax,
  author = {Reis, Eduardo P. and de Paiva, Joselisa P. Q. and da Silva, Maria C. B. and others},
  title = {BRAX, Brazilian labeled chest x-ray dataset},
  journal = {Scientific Data},
  volume = {9},
  pages = {487},
  year = {2022}
}""",
    home="https://physionet.org/content/brax/",
)
_OLDEST_GROUP = re.compile(r"(\d+) or more")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(DrawnSplits):
    """BRAX as PhysioNet ships it: images/ and master_spreadsheet_update.csv."""

    views: Literal["frontal", "all"] = "frontal"
    """frontal (PA and AP), or all."""


def plan(config: Config) -> Plan:
    """Return the plan of a BRAX conversion.

    Raises:
        InputError: the table or a column is missing, a value is not allowed, or rows and files do not match.
    """
    root = folder(config.src)
    table = find_one(root, ["master_spreadsheet_update.csv", "master_spreadsheet.csv"], "table")
    rows = unite(gather(_samples(table), LABELS), where=table.name)
    rows, excluded = with_files(
        rows, root, (".png",), table=table.name, allow_missing=config.allow_missing,
        wanted=lambda name: name.split("/")[0] == "images",
    )  # fmt: skip
    if config.views == "frontal":
        rows, others = split_off_views(rows)
        excluded.append(others)
    rows = with_drawn_splits(rows, config)
    return build(
        Gathered(rows),
        name="brax",
        source="BRAX (Reis et al., Scientific Data 2022)",
        about=ABOUT,
        labels=LABELS,
        split_scheme="random",
        split_detail=config.split_detail(),
        opener=FileOpener(str(root)),
        excluded=excluded,
    )


def _samples(table: Path) -> Iterator[Sample]:
    columns: dict[str, str] | None = None
    for line, row in read_table(table, ("PngPath", "PatientID", "PatientSex", "PatientAge", "ViewPosition")):
        columns = columns or observation_columns(row, table)
        where = f"{table}, line {line}"
        path, patient = row["PngPath"].strip(), cells.patient(row["PatientID"])
        inside = path[path.find("images/") :].split("/")
        if len(inside) < 5 or patient is None:
            raise InputError(
                f"{where}: PngPath {path!r} is not images/id_.../Study_.../Series_.../image.png, or no PatientID"
            )
        oldest = _OLDEST_GROUP.fullmatch(row["PatientAge"].strip())
        yield Sample(
            source="/".join(inside),
            key="_".join(inside[1:]).removesuffix(".png"),
            split="",
            patient_id=patient,
            study_id=inside[2],
            labels=observations(row, columns, where),
            view=cells.view(row["ViewPosition"]),
            sex=cells.sex(row["PatientSex"]),
            age=float(oldest[1]) if oldest else cells.age(row["PatientAge"]),
        )
