"""Settings of every conversion (`cxrdist shard NAME`), torch-free."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from shards.errors import InputError
from shards.ranges import SEEDS, out_of_range


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """What all conversions have in common."""

    src: str
    """Folder (or file) of the published dataset."""
    out: str
    """Folder of the shard set to make; the same command run again goes on where a killed one stopped."""
    size: Annotated[int | None, "[16, 4096]"] = 256
    """Shortest side of the stored images, pixels; smaller sources are enlarged; None: as they are."""
    quality: Annotated[int, "[1, 100]"] = 95
    """JPEG quality, 1 to 100."""
    image_format: Literal["jpg", "png"] = "jpg"
    """jpg, or png (lossless) for small images."""
    shard_size: Annotated[int, "[1, inf)"] = 1000
    """Most samples in one tar."""
    workers: Annotated[int | None, "[1, 1024]"] = None
    """Processes; None: one per core this process may use. Does not change the bytes."""
    part: str | None = None
    """"I/N" (I from 0 to N-1): convert only this part of the tars, e.g. in a job array; the command with --merge true
    then joins them. None: all parts and the merge in one go."""
    merge: bool = False
    """Only join parts that are all complete into a shard set."""
    allow_missing: bool = False
    """Go on where rows have no image file or image files have no row; they are listed in rejects.parquet."""
    max_rejects: Annotated[float, "[0, 1]"] = 0.01
    """Most unusable files, as a fraction of the rows, before the conversion stops."""
    max_pixels: Annotated[int, "[256, inf)"] = 1 << 26
    """Larger images are rejects (a guard against decompression bombs)."""
    train_list: str | None = dataclasses.field(default=None, metadata={"path": True, "later": True})
    """A benchmark's list of the train split in place of the set's own splits: a name of an image per line (labels may
    follow it), or a CSV with a column of names. An image in no list is left out. None: the set's own splits."""
    val_list: str | None = dataclasses.field(default=None, metadata={"path": True, "later": True})
    """The list of the val split."""
    test_list: str | None = dataclasses.field(default=None, metadata={"path": True, "later": True})
    """The list of the test split."""
    split_name: str | None = dataclasses.field(default=None, metadata={"later": True})
    """What the lists are called in the card and in every result, such as chexnet or benchx, before a hash of them;
    None: list."""
    allow_shared_patients: bool = dataclasses.field(default=False, metadata={"later": True})
    """Take lists that put a patient into two splits as they are; the card says how many."""

    NOT_IN_BYTES = ("src", "out", "workers", "part", "merge", "allow_missing", "max_rejects")

    def lists(self) -> dict[str, str]:
        """Return the lists by split, those that are given."""
        given = {"train": self.train_list, "val": self.val_list, "test": self.test_list}
        return {split: path for split, path in given.items() if path is not None}

    def check(self) -> None:
        """Refuse values out of range.

        Raises:
            InputError: naming the option.
        """
        if not self.lists() and (self.split_name is not None or self.allow_shared_patients):
            raise InputError("--split_name and --allow_shared_patients belong to --train_list, --val_list, --test_list")
        if self.split_name is not None and not re.fullmatch(r"[a-z][a-z0-9_-]{0,39}", self.split_name):
            raise InputError(f"--split_name {self.split_name!r}: lower-case letters, digits, - and _ only, at most 40")
        if wrong := out_of_range(self):
            raise InputError(wrong)
        if self.part is not None and self.merge:
            raise InputError("--part and --merge exclude each other: first all parts, then the merge")
        self.part_numbers()

    def part_numbers(self) -> tuple[int, int]:
        """Return (I, N) of `part`; (0, 1) where it is None."""
        if self.part is None:
            return 0, 1
        first, slash, last = self.part.partition("/")
        whole = slash and first.isdecimal() and last.isdecimal() and len(last) < 9
        if not (whole and len(first) < 9 and int(first) < int(last)):
            raise InputError(f"--part {self.part!r}: write I/N with I from 0 to N-1, e.g. 0/8 to 7/8")
        return int(first), int(last)

    def recorded(self) -> dict[str, Any]:
        """Return what determines the bytes, for the card: no paths of this machine, no worker counts."""
        kept: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in self.NOT_IN_BYTES:
                continue
            if field.metadata.get("later") and value == field.default:
                continue
            if field.metadata.get("path") and value is not None:
                value = Path(value).name
            kept[field.name] = value
        return kept


def check_settings(made: Mapping[str, Any], wanted: Mapping[str, Any], where: str | Path, *, whole: bool) -> None:
    """Refuse a shard set that was made with other settings.

    Args:
        made: `Card.config` of the set.
        wanted: `recorded()` of the conversion that is asked for.
        where: the set, for the error.
        whole: whether `wanted` has everything that the card of such a conversion has; another kind has more.

    Raises:
        InputError: naming a setting, what it was and what is wanted.
    """
    wanted = json.loads(json.dumps(wanted))
    names = [*wanted, *(sorted(set(made) - set(wanted)) if whole else ())]
    for name in names:
        if made.get(name) != wanted.get(name) or (name in made) != (name in wanted):
            raise InputError(
                f"{where} holds another shard set ({name} {made.get(name)!r}, not {wanted.get(name)!r}); choose another"
                " --out"
            )


def path_field() -> Any:
    """Return a dataclass field for an optional path: the card records its last component only."""
    return dataclasses.field(default=None, metadata={"path": True})


def later_field(default: Any = None) -> Any:
    """Return a field for an option that came later: its default is not recorded, so that older sets keep their hash."""
    return dataclasses.field(default=default, metadata={"later": True})


@dataclasses.dataclass(frozen=True, kw_only=True)
class DrawnSplits(ConvertConfig):
    """Splits drawn by patient, for sets that publish none."""

    val_fraction: Annotated[float, "[0, 1)"] = 0.1
    """Fraction of the images drawn as val."""
    test_fraction: Annotated[float, "[0, 1)"] = 0.2
    """Fraction of the images drawn as test."""
    seed: Annotated[int, SEEDS] = 0
    """Seed of the draw."""

    def split_detail(self) -> dict[str, Any]:
        """Return what determines the splits, for the card."""
        return {"val_fraction": self.val_fraction, "test_fraction": self.test_fraction, "seed": self.seed}


@dataclasses.dataclass(frozen=True, kw_only=True)
class NihConfig(ConvertConfig):
    """NIH ChestX-ray14, the whole of it or Kaggle's sample."""

    splits: Literal["official", "list", "random"] = "official"
    """official: train_val_list.txt and test_list.txt, val cut from train by patient; list: your own files;
    random: by patient, where there are no lists (Kaggle's sample)."""
    table: str | None = path_field()
    """The CSV of findings; None: the Data_Entry_2017*.csv or sample_labels.csv found in src."""
    train_list: str | None = path_field()
    """Image names of the train split, one per line (splits=list)."""
    val_list: str | None = path_field()
    """Image names of the val split (splits=list)."""
    test_list: str | None = path_field()
    """Image names of the test split (splits=list)."""
    val_fraction: Annotated[float, "[0, 1)"] = 0.1
    """Fraction of train images cut off as val, by patient (official), or of all images (random)."""
    test_fraction: Annotated[float, "[0, 1)"] = 0.2
    """Fraction of all images that random puts into test, by patient."""
    seed: Annotated[int, SEEDS] = 0
    """Seed of the cut."""

    def check(self) -> None:
        """Refuse values out of range.

        Raises:
            InputError: naming the option.
        """
        super().check()
        if self.splits == "list" and self.train_list is None:
            raise InputError("splits=list needs --train_list FILE (and --val_list, --test_list)")
        if self.splits != "list" and self.lists():
            raise InputError(f"--train_list, --val_list and --test_list need --splits list, not {self.splits}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChexpertConfig(ConvertConfig):
    """CheXpert, full size or -small."""

    table: str | None = path_field()
    """Table of the train images with other labels, in train.csv's columns (visualCheXbert's, CheXbert's); None:
    train.csv."""
    views: Literal["frontal", "all"] = "frontal"
    """frontal, or all (with the laterals)."""
    valid_as: Literal["val", "test"] = "val"
    """What the 234 images of valid.csv are: val; or test where the test set is absent, with val cut from train."""
    val_fraction: Annotated[float, "[0, 1)"] = 0.05
    """Fraction of train images cut off as val, by patient; used only with valid_as=test."""
    seed: Annotated[int, SEEDS] = 0
    """Seed of the cut."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class KermanyConfig(ConvertConfig):
    """Paediatric chest X-rays of Kermany et al. in Kaggle's folders."""

    splits: Literal["merged", "merged_by_person", "patient"] = "merged"
    """merged: Kaggle's val put into train, then val drawn from it, stratified by class, image by image, test as
    published; merged_by_person: the same with all images of a person in train or in val; patient: everything pooled and
    split by person id, stratified by class."""
    val_fraction: Annotated[float, "[0, 1)"] = 0.2
    """Fraction of train (patient: of all that is not test; otherwise: of train with Kaggle's val) that becomes val."""
    test_fraction: Annotated[float, "[0, 1)"] = 0.1
    """Fraction of all images in test (patient)."""
    seed: Annotated[int, SEEDS] = 0
    """Seed of the draw."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MedmnistConfig(ConvertConfig):
    """PneumoniaMNIST or ChestMNIST as published: one npz file."""

    size: Annotated[int | None, "[16, 4096]"] = None
    """Shortest side, pixels; None: as in the file (28, 64, 128 or 224)."""
    image_format: Literal["jpg", "png"] = "png"
    """png (lossless), or jpg."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CsvConfig(ConvertConfig):
    """Your own table of JPEG, PNG, TIFF or DICOM files."""

    table: str
    """The CSV file, a header line first; a relative path is looked up here and then in src."""
    name: str = "csv"
    """Name of the dataset in the card and in every result."""
    delimiter: str | None = None
    """Character between two cells; None: found (comma, semicolon, tab or bar)."""
    encoding: str | None = None
    """Encoding of the table as Python spells it, e.g. cp1252; None: found (UTF-8, UTF-16 or Latin-1)."""
    path_column: str = "path"
    """Column of the image path, relative to src."""
    path_prefix: str = ""
    """Put before every path, e.g. "images/"."""
    path_suffix: str = ""
    """Put behind every path, e.g. ".png" where the column holds bare names."""
    patient_column: str | None = None
    """Column of the patient id; None: every image is its own patient."""
    study_column: str | None = later_field()
    """Column of the examination that an image belongs to, so that models can be scored by study; None: unknown."""
    split_column: str | None = None
    """Column that says train, val (valid, validate, validation, dev, tune) or test; None: drawn by patient."""
    view_column: str | None = None
    """Column of the view (PA, AP, LATERAL); None: unknown."""
    sex_column: str | None = None
    """Column of the sex (M, F, Male, Female); None: unknown."""
    age_column: str | None = None
    """Column of the age in years (058Y, 060M and 003D are understood); None: unknown."""
    labels: dict[str, str] | None = None
    """Label columns and the label each holds, e.g. {"Effusion": "pleural_effusion"}; a name outside the common table
    must be spelled in lower case with underscores. None: every column whose heading is a known label."""
    findings_column: str | None = None
    """Column of findings joined by `separator`, instead of one column per label; a finding not named is negative."""
    separator: str = "|"
    """Between two findings of `findings_column`."""
    other_findings: Literal["refuse", "ignore"] = "refuse"
    """What becomes of a finding that neither the common table nor `labels` knows: an error, or left out and counted."""
    readers: Literal["majority", "any", "all"] | None = None
    """How several rows of one image become one where each is a reader's: per label what more than half say (else -1),
    positive where any says so, or positive where all do. None: one reader; contradicting rows are an error."""
    reader_column: str | None = None
    """Column that says whose row it is, where a reader has several rows of one image; None: every row is a reader."""
    val_fraction: Annotated[float, "[0, 1)"] = 0.1
    """Fraction of the images drawn as val where there is no split column."""
    test_fraction: Annotated[float, "[0, 1)"] = 0.2
    """Fraction of the images drawn as test where there is no split column."""
    seed: Annotated[int, SEEDS] = 0
    """Seed of the draw."""
    bits: Annotated[int | None, "[8, 16]"] = None
    """Significant bits of 16-bit images; None: 12 where no pixel of an image exceeds 4095, else 16."""
    dicom_window: Literal["file", "full", "minmax"] = "file"
    """file: the file's own window, and full where it has none; full: all stored bits; minmax: darkest to brightest."""
    check_unlisted: bool = True
    """Count image files under src that have no row as missing rows."""

    def check(self) -> None:
        """Refuse values out of range.

        Raises:
            InputError: naming the option.
        """
        super().check()
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.delimiter in '"\r\n'):
            raise InputError(f"--delimiter {self.delimiter!r}: one character is needed, e.g. ';'")
        if self.split_column is not None and self.lists():
            raise InputError("--split_column and --train_list, --val_list, --test_list exclude each other")
