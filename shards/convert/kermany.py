"""Paediatric chest X-rays of Kermany et al. (Cell 2018), in the folders of Kaggle or of the Mendeley release."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from shards import labels as names
from shards.convert.about import About
from shards.convert.config import KermanyConfig
from shards.convert.plan import FileOpener, Plan, build
from shards.convert.sample import Sample
from shards.convert.sources import find_files, folder
from shards.convert.splits import cut_by_patient, draw_stratified
from shards.errors import InputError

ABOUT = About(
    licence="CC BY 4.0",
    citation="""@article{kermany2018identifying,
  author = {Kermany, Daniel S. and Goldbaum, Michael and Cai, Wenjia and Valentim, Carolina C. S. and others},
  title = {Identifying Medical Diagnoses and Treatable Diseases by Image-Based Deep Learning},
  journal = {Cell},
  volume = {172},
  number = {5},
  pages = {1122--1131},
  year = {2018}
}""",
    home="https://data.mendeley.com/datasets/rscbjbr9sj",
)
CLASSES = ("NORMAL", "PNEUMONIA")
LABELS = names.KERMANY
_PERSON = re.compile(r"(person\d+)_(virus|bacteria)_", re.IGNORECASE)
_NORMAL = re.compile(r"((?:NORMAL2-)?IM-\d+)-", re.IGNORECASE)
_MENDELEY = re.compile(r"(NORMAL|BACTERIA|VIRUS)-(\d+)-", re.IGNORECASE)


def plan_kermany(config: KermanyConfig) -> Plan:
    """Return the plan of a Kermany conversion.

    Raises:
        InputError: the folders train/NORMAL and train/PNEUMONIA are not there.
    """
    root = find_root(folder(config.src))
    wanted = {f"{split}/{kind}" for split in ("train", "val", "test") for kind in CLASSES}
    files = [
        path
        for path in find_files(root, (".jpeg", ".jpg", ".png"), lambda name: _leads_to(name, wanted))
        if path.rpartition("/")[0] in wanted
    ]
    split_of = _SCHEMES[config.splits](files, config)
    detail = {"val_fraction": config.val_fraction, "seed": config.seed}
    if config.splits == "patient":
        detail["test_fraction"] = config.test_fraction
    unread = sum(person(path)[0] is None for path in files)
    return build(
        _samples(files, split_of),
        name="kermany",
        source="paediatric chest X-rays of Kermany et al. (Cell 2018)",
        about=ABOUT,
        labels=LABELS,
        split_scheme=config.splits,
        split_detail=detail,
        opener=FileOpener(str(root)),
        notes=[f"{unread} file names give no person id; each such image counts as its own patient"] if unread else [],
    )


def find_root(src: Path) -> Path:
    """Return the folder that holds train/NORMAL: `src` or chest_xray in it (Kaggle's archive)."""
    for root in (src, src / "chest_xray", src / "chest_xray" / "chest_xray"):
        if all((root / "train" / kind).is_dir() for kind in CLASSES):
            return root
    raise InputError(f"{src}: no train/NORMAL and train/PNEUMONIA there; --src must be the folder chest_xray")


def _leads_to(name: str, wanted: set[str]) -> bool:
    return name in wanted or any(path.startswith(name + "/") for path in wanted)


def person(path: str) -> tuple[str | None, str | None]:
    """Return (person id, cause) read from a file name; cause is "virus", "bacteria" or None.

    Person numbers of viral and bacterial files are taken as one numbering: that can only join patients who are two,
    never split one over two splits.
    """
    name = path.rpartition("/")[2]
    if match := _PERSON.match(name):
        return match[1].lower(), match[2].lower()
    if match := _NORMAL.match(name):
        return match[1].upper(), None
    if match := _MENDELEY.match(name):
        return match[2], {"NORMAL": None, "BACTERIA": "bacteria", "VIRUS": "virus"}[match[1].upper()]
    return None, None


def _samples(files: list[str], split_of: dict[str, str]) -> Iterator[Sample]:
    stems = Counter(Path(path).stem for path in files)
    for path in files:
        _, kind, _ = path.split("/")
        patient, cause = person(path)
        sick = kind == "PNEUMONIA"
        stem = Path(path).stem
        yield Sample(
            source=path,
            # Kaggle's folders hold a few names twice; those get their folder in front.
            key=stem if stems[stem] == 1 else path.rpartition(".")[0].replace("/", "_"),
            split=split_of[path],
            patient_id=patient,
            labels={
                "pneumonia": int(sick),
                "bacterial_pneumonia": _cause(sick, cause, "bacteria"),
                "viral_pneumonia": _cause(sick, cause, "virus"),
            },
        )


def _cause(sick: bool, cause: str | None, wanted: str) -> int | None:
    if not sick:
        return 0
    return None if cause is None else int(cause == wanted)


def _merged(files: list[str], config: KermanyConfig) -> dict[str, str]:
    """Test as published; Kaggle's 16-image val joins train, then floor(fraction * n) of each class become val."""
    split_of = {path: "test" if path.startswith("test/") else "train" for path in files}
    classes = {path: path.split("/")[1] for path, split in split_of.items() if split == "train"}
    return split_of | dict.fromkeys(draw_stratified(classes, config.val_fraction, config.seed), "val")


def _merged_by_person(files: list[str], config: KermanyConfig) -> dict[str, str]:
    """Test as published; of the rest, within each class, whole persons go to val or train."""
    split_of = {path: "test" for path in files if path.startswith("test/")}
    rest = [path for path in files if path not in split_of]
    return split_of | _cut_classes(rest, config.seed, val_fraction=config.val_fraction)


def _by_patient(files: list[str], config: KermanyConfig) -> dict[str, str]:
    """Pool everything; within each class, whole persons go to test, val or train."""
    val_of_all = config.val_fraction * (1 - config.test_fraction)
    return _cut_classes(files, config.seed, val_fraction=val_of_all, test_fraction=config.test_fraction)


def _cut_classes(files: list[str], seed: int, **fractions: float) -> dict[str, str]:
    split_of: dict[str, str] = {}
    for kind in CLASSES:
        members = [path for path in files if path.split("/")[1] == kind]
        patients = [person(path)[0] or path for path in members]
        split_of |= dict(zip(members, cut_by_patient(patients, seed, **fractions), strict=True))
    return split_of


_SCHEMES = {"merged": _merged, "merged_by_person": _merged_by_person, "patient": _by_patient}
