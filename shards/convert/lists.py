"""A benchmark's published splits: lists of image names, one list a split, in place of the dataset's own splits.

Known layouts: one name a line, with or without folders and ending (BenchX's train.txt, NIH's own lists); a name and its
0/1 labels (the lists of the CheXNet reimplementation for ChestX-ray14); a CSV file with a column of names.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from shards.convert.config import ConvertConfig
from shards.convert.delimited import dialect, read_names, read_table
from shards.convert.plan import Plan, in_two_splits, loud, reject_table
from shards.convert.rows import (
    among,
    each,
    final_order,
    first_of_each,
    groups,
    keep,
    left_out,
    looked_up,
    place,
    strings,
    with_column,
)
from shards.convert.sources import without_ending
from shards.convert.spill import reordered
from shards.errors import InputError
from shards.format import SPLITS

pc: Any = pyarrow.compute  # its functions are made at import, unseen by type checkers

NAMES = (
    "image index", "image_id", "imageid", "image", "image_name", "dicom_id", "patientid", "path", "filename", "file",
    "name", "imagepath", "image_path", "img_path",
)  # fmt: skip
"""Headings of the column of names in a CSV list, the first that is there is taken; letter case does not matter."""
_DEEPEST = 4
"""So many leading folders of a listed name may be unknown to the source (CheXpert-v1.0-small/train/...)."""
_LABELLED = re.compile(r"(?i)^(.+\.(?:png|jpe?g|tiff?|dcm|dicom))(?:[\s,]+[-+.\d]+)+$")
_DRAWN = ("val_fraction", "test_fraction", "seed")


def apply(plan: Plan, config: ConvertConfig) -> Plan:
    """Return a plan whose splits are those of the configuration's lists; the plan itself where there are none.

    An image in no list is left out. The scheme's name in the card is `config.split_name` (or "list") and the start of a
    hash over all lists, so that results on other lists are never averaged with these.

    Raises:
        InputError: a list cannot be read or is empty, names no image that there is, an image or a patient would be in
            two splits.
    """
    files = {split: Path(path) for split, path in config.lists().items()}
    if not files:
        return plan
    table = plan.table
    assert isinstance(table, pa.Table)  # as a converter made it
    lists = {split: _names(path) for split, path in files.items()}
    codes, lost, notes = _codes(plan, lists, files, config)
    shared = _shared(plan, table, codes, config)
    excluded = [left_out(table["source"].filter(pa.array(codes < 0)), "in none of the split lists"), *lost]
    table = with_column(table, "split", looked_up(pa.array(SPLITS), pa.array(codes, mask=codes < 0)))
    table = keep(table, codes >= 0)
    table = reordered(table, final_order(table))
    extras = {
        name: keep(held, among(held["key"], table["key"])) if "key" in held.column_names else held
        for name, held in plan.extras.items()
    }
    hashes = {split: _hash(names) for split, names in lists.items()}
    whole = hashlib.sha256(repr(sorted(hashes.items())).encode()).hexdigest()
    detail = {key: value for key, value in plan.split_detail.items() if key not in _DRAWN}
    detail |= {f"{split}_list": {"names": len(names), "sha256": hashes[split]} for split, names in lists.items()}
    own = loud(plan.shared_patients)  # of the splits that are replaced
    return dataclasses.replace(
        plan,
        table=table,
        excluded=reject_table((), plan.left_out(), *excluded),
        extras=extras,
        split_scheme=f"{config.split_name or 'list'}-{whole[:8]}",
        split_detail=detail,
        shared_patients=shared,
        notes=(*(note for note in plan.notes if note not in own), *notes, *loud(shared)),
    )


def _names(path: Path) -> pa.ChunkedArray:
    """Return the names in a list, without ending, each once, sorted."""
    plain = re.sub(r"(?i)\.gz$", "", path.name).lower()
    lines = _column(path) if plain.endswith((".csv", ".tsv")) else map(_unlabelled, each(read_names(path)))
    names = sorted({_plain(line) for line in lines if line})
    if not names:
        raise InputError(f"{path} names no image")
    return strings(names)


def _column(path: Path) -> Iterator[str]:
    found = dialect(path, ())
    column = None
    for _, row in read_table(path, (), found.delimiter, found.encoding):
        if column is None:
            known = {name.lower(): name for name in row}
            column = next((known[name] for name in NAMES if name in known), None)
            if column is None:
                raise InputError(
                    f"{path}: none of its columns ({', '.join(row)}) is known to hold names of images; head it one of"
                    f" {', '.join(NAMES)}, or write one name a line in a .txt file"
                )
        yield row[column].strip()


def _unlabelled(line: str) -> str:
    """Return the name in a line that may go on with the image's labels."""
    found = _LABELLED.match(line)
    return found[1] if found else line


def _plain(name: str) -> str:
    """Return a name with "/" between its folders and without ending."""
    return without_ending(re.sub(r"^(\./)+|^/+", "", name.replace("\\", "/")))


def _hash(names: pa.ChunkedArray) -> str:
    digest = hashlib.sha256()
    for name in each(names):
        digest.update(f"{name}\n".encode())
    return digest.hexdigest()


def _codes(
    plan: Plan, lists: Mapping[str, pa.ChunkedArray], files: Mapping[str, Path], config: ConvertConfig
) -> tuple[np.ndarray, list[pa.Table], list[str]]:
    """Return the split of every row as its place in SPLITS or -1, names that are lost, and lines for the user."""
    table = plan.table
    assert isinstance(table, pa.Table)
    sources = strings(_plain(source) for source in each(table["source"]))
    codes = np.full(table.num_rows, -1, dtype=np.int8)
    lost, notes = [], []
    for split, names in lists.items():
        rows = _rows_of(names, sources)
        absent = names.filter(rows.is_null())
        taken = rows.drop_null().to_numpy(zero_copy_only=False).astype(np.int64)
        again = taken[codes[taken] >= 0]
        if len(again):
            other = SPLITS[codes[again[0]]]
            first = table["source"][int(again[0])].as_py()
            raise InputError(f"{len(again)} images are in both {files[other]} and {files[split]} (first: {first})")
        codes[taken] = SPLITS.index(split)
        if len(absent):
            gone, told = _missing(plan, absent, len(names), files[split], config)
            lost += gone
            notes += told
    if not (codes >= 0).any():
        raise InputError(f"none of the images in {', '.join(map(str, files.values()))} is left to convert")
    return codes, lost, notes


def _missing(
    plan: Plan, absent: pa.ChunkedArray, count: int, path: Path, config: ConvertConfig
) -> tuple[list[pa.Table], list[str]]:
    """Return what becomes of listed names that are no row: rows of rejects.parquet and lines for the user."""
    others = strings(
        _plain(source) for source in [*each(plan.left_out()["source"]), *(name for name, _ in plan.refused)]
    )
    known = _rows_of(absent, others).is_valid() if len(others) else pa.array([False] * len(absent))
    notes = []
    if left := pc.sum(known).as_py():
        first = absent.filter(known)[0].as_py()
        notes.append(f"{path.name}: {left} of its {count} images are left out for another reason (first: {first})")
    unknown = absent.filter(pc.invert(known))
    if not len(unknown):
        return [], notes
    some = ", ".join(unknown.slice(0, 3).to_pylist())
    told = f"{path}: {len(unknown)} of its {count} names are no image of {config.src} (first: {some})"
    if not config.allow_missing:
        raise InputError(f"{told}; --allow_missing true goes on without them")
    return [left_out(unknown, f"listed in {path.name}, but not there")], [*notes, f"WARNING: {told}"]


def _rows_of(names: pa.ChunkedArray, sources: pa.ChunkedArray) -> pa.Array:
    """Return int (N,): the row of each name, null where there is none.

    A name is a row's whole path, or its last part where no two rows share it, or a path in some folders more.
    """
    found = place(names, sources).cast(pa.int64())
    bare = _last(sources)
    if found.null_count and first_of_each(bare).all():
        found = pc.coalesce(found, place(_last(names), bare).cast(pa.int64()))
    for _ in range(_DEEPEST):
        if not found.null_count:
            break
        names = strings(name.partition("/")[2] or name for name in each(names))
        found = pc.coalesce(found, place(names, sources).cast(pa.int64()))
    return found


def _last(names: pa.ChunkedArray) -> pa.ChunkedArray:
    return strings(name.rpartition("/")[2] for name in each(names))


def _shared(plan: Plan, table: pa.Table, codes: np.ndarray, config: ConvertConfig) -> dict[str, int]:
    """Return how many patients each pair of splits shares.

    Raises:
        InputError: any, unless the configuration allows it.
    """
    if not plan.patients_known:
        return {}
    code, first = groups(table["patient_id"])
    members = np.zeros((len(SPLITS), len(first)), dtype=bool)
    for split in range(len(SPLITS)):
        members[split, code[codes == split]] = True
    shared = in_two_splits(members)
    if shared and not config.allow_shared_patients:
        told = []
        for pair, count in shared.items():
            a, b = (SPLITS.index(split) for split in pair.split("/"))
            both = first[np.flatnonzero(members[a] & members[b])]
            names = ", ".join(sorted(each(looked_up(table["patient_id"], pa.array(both))))[:3])
            told.append(f"{count} patients would be in both {pair.replace('/', ' and ')} (first: {names})")
        raise InputError(
            f"{'; '.join(told)}: results on such lists are optimistic; --allow_shared_patients true takes them as they"
            " are, and the card records how many"
        )
    return shared
