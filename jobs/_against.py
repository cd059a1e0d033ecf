"""What `cxrdist verify SET --against OTHER` says and writes of an overlap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

    from shards.overlap.find import Overlap

LEARNT, TESTED = ("train", "val"), ("test",)
"""Splits that a model is made with, and those that it is tested on."""

_CELL = 34
"""Characters of a key or a patient in the table of pairs."""


def leakage(found: Overlap) -> list[str]:
    """Return one line for each direction in which a test would meet what was learnt from; empty where there is none."""
    lines = []
    for mine, theirs, words in (
        (LEARNT, TESTED, "{n} of {one}'s train or val {are} in the test split of {other}"),
        (TESTED, LEARNT, "{n} of {one}'s test split {are} in train or val of {other}"),
    ):
        images, patients = found.images_in(mine, theirs), found.patients_in(mine, theirs)
        if images or patients:
            number = " and ".join(count(n, word) for n, word in ((images, "image"), (patients, "patient")) if n)
            text = words.format(
                n=number, one=found.one.where, other=found.other.where, are="is" if images + patients == 1 else "are"
            )
            lines.append(f"LEAKAGE: {text}")
    return lines


def describe(found: Overlap, pairs: int) -> Iterator[str]:
    """Yield the lines that a person reads, with the first pairs.

    Args:
        found: the overlap.
        pairs: rows of the table of pairs.
    """
    one, other = found.one, found.other
    yield (
        f"{one.where} ({one.card.name}, {one.index.num_rows} images) against "
        f"{other.where} ({other.card.name}, {other.index.num_rows} images):"
    )
    lines = {"same key": _pairs(found, found.by_key), "same file name": _pairs(found, found.by_name)}
    lines["same picture"] = "not compared (--decode false)"
    if found.by_picture is not None:
        mine, theirs = (len(set(rows[found.by_picture].tolist())) for rows in (found.rows, found.others))
        lines["same picture"] = f"{count(int(found.by_picture.sum()), 'pair')}{_of_both(mine, theirs, 'image')}"
    if found.flat:
        lines["not compared"] = f"{count(found.flat, 'image')} of nearly one grey"
    lines["same patient id"] = _same_ids(found)
    mine, theirs = (len({pair[place] for pair in found.patients}) for place in (0, 1))
    lines["patients in both"] = f"{mine}{_of_both(mine, theirs, 'patient')}" if _known(found) else _UNKNOWN
    yield from (f"  {what + ':':<18}{text}" for what, text in lines.items())
    if found.shared.any() or found.patients:
        yield from _by_split(found)
    if found.shared.any() and pairs:
        yield from _first_pairs(found, pairs)


def count(number: int, word: str) -> str:
    """`1 pair`, `3 pairs`."""
    return f"{number} {word}" + ("" if number == 1 else "s")


_UNKNOWN = "not known: one of the sets has no patient ids"


def _of_both(mine: int, theirs: int, word: str) -> str:
    """How many of each set they are, where that is not one number."""
    return "" if mine == theirs else f" ({count(mine, word)} of this set, {theirs} of the other)"


def _pairs(found: Overlap, flags: Any) -> str:
    """How many pairs, and what their pictures say."""
    text, looked = count(int(flags.sum()), "pair"), found.bits[flags] >= 0
    if found.by_picture is None or not flags.any():
        return text
    same = int(found.by_picture[flags].sum())
    return f"{text}, {same} of the same picture, {int(looked.sum()) - same} of another"


def _known(found: Overlap) -> bool:
    return found.one.card.patients_known and found.other.card.patients_known


def _same_ids(found: Overlap) -> str:
    text = str(len(found.same_ids))
    if not found.same_ids:
        return text
    return text + (
        ", taken as the same persons" if found.ids_agree else "; nothing says that they are the same persons"
    )


def _by_split(found: Overlap) -> Iterator[str]:
    """A table of images and patients by the splits of both sets."""
    from shards.format import SPLITS

    ours, theirs = ([name for name in SPLITS if name in side.card.splits] for side in (found.one, found.other))
    yield ""
    yield "  images / patients" + "".join(f"{f'in its {split}':>16}" for split in theirs)
    for mine in ours:
        cells = ((found.images_in([mine], [split]), found.patients_in([mine], [split])) for split in theirs)
        yield f"  {'in ' + mine:<17}" + "".join(f"{f'{n} / {p}':>16}" for n, p in cells)


def _first_pairs(found: Overlap, pairs: int) -> Iterator[str]:
    import numpy as np

    first = np.flatnonzero(found.shared)[:pairs]
    rows, others = found.rows[first], found.others[first]
    yield ""
    head = f"  {'key':<{_CELL}} {'split':<6} {'key in the other set':<{_CELL}} {'split':<6}"
    yield head if found.by_picture is None else f"{head} {'bits':>4} {'corr.':>6}"
    sides = ((found.one, rows), (found.other, others))
    columns = (side.text(column, at) for side, at in sides for column in ("key", "split"))
    for number, (key, split, their_key, their_split) in enumerate(zip(*columns, strict=True)):
        bits, correlation = found.bits[first[number]], found.correlation[first[number]]
        numbers = f"{bits:>4} {correlation:>6.3f}" if bits >= 0 else ""
        yield f"  {_cut(key)} {split:<6} {_cut(their_key)} {their_split:<6} {numbers}".rstrip()
    if (more := int(found.shared.sum()) - len(first)) > 0:
        yield f"  and {count(more, 'more pair')}; --out FILE.csv writes all"
    if found.by_picture is not None:
        yield "  bits: of 256, in which the pictures' hashes differ; corr.: of their thumbnails' fine structure"


def _cut(text: str) -> str:
    return f"{text if len(text) <= _CELL else text[: _CELL - 3] + '...':<{_CELL}}"


def table(overlaps: Sequence[Overlap]) -> pa.Table:
    """Every pair of images of which something says that they are one, then every patient in both, as a table."""
    import pyarrow as pa

    return pa.concat_tables([part for found in overlaps for part in (_image_rows(found), _patient_rows(found))])


def _schema() -> pa.Schema:
    import pyarrow as pa

    texts = ("kind", "other", "key", "other_key", "split", "other_split", "patient_id", "other_patient_id")
    flags = ("shared", "same_key", "same_name", "same_picture")
    numbers = [("bits", pa.int32()), ("correlation", pa.float32())]
    return pa.schema([*((name, pa.string()) for name in texts), *((name, pa.bool_()) for name in flags), *numbers])


def _image_rows(found: Overlap) -> pa.Table:
    import pyarrow as pa

    total, seen = len(found.rows), found.bits >= 0
    columns: dict[str, Any] = {"kind": ["image"] * total, "other": [found.other.where] * total}
    for prefix, side, rows in (("", found.one, found.rows), ("other_", found.other, found.others)):
        columns |= {prefix + name: side.text(name, rows) for name in ("key", "split", "patient_id")}
    columns |= {"shared": found.shared, "same_key": found.by_key, "same_name": found.by_name}
    columns["same_picture"] = None if found.by_picture is None else pa.array(found.by_picture, mask=~seen)
    columns["bits"] = pa.array(found.bits, pa.int32(), mask=~seen)
    columns["correlation"] = pa.array(found.correlation, pa.float32(), mask=~seen)
    return _with_all_columns(columns, total)


def _patient_rows(found: Overlap) -> pa.Table:
    mine, theirs = found.patient_splits
    total = len(found.patients)
    columns: dict[str, Any] = {"kind": ["patient"] * total, "other": [found.other.where] * total}
    columns |= {"patient_id": [a for a, _ in found.patients], "other_patient_id": [b for _, b in found.patients]}
    columns["split"] = [" ".join(sorted(mine[a])) for a, _ in found.patients]
    columns["other_split"] = [" ".join(sorted(theirs[b])) for _, b in found.patients]
    return _with_all_columns(columns | {"shared": [True] * total}, total)


def _with_all_columns(columns: dict[str, Any], total: int) -> pa.Table:
    import pyarrow as pa

    schema = _schema()
    arrays = [columns.get(name) if columns.get(name) is not None else [None] * total for name in schema.names]
    return pa.table([pa.array(array, field.type) for array, field in zip(arrays, schema, strict=True)], schema=schema)


def check_out(out: str | None) -> None:
    """Refuse early what `write` could not write.

    Raises:
        UsageError: another ending than .csv or .parquet, a folder, or no folder to write in.
    """
    from jobs._options import UsageError

    if out is None:
        return
    path = Path(out)
    if path.suffix.lower() not in (".csv", ".parquet") or path.is_dir():
        raise UsageError(f"cxrdist verify: --out {out}: name a file that ends in .csv or .parquet")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"cxrdist verify: --out {out}: there is no folder {path.absolute().parent}")


def write(out: str, overlaps: Sequence[Overlap]) -> None:
    """Write `table` as CSV or Parquet, by the ending; complete or not at all."""
    import pyarrow.csv

    from shards import parquet
    from shards.atomic import write_with

    rows, path = table(overlaps), Path(out)
    if path.suffix.lower() == ".csv":
        write_with(path, lambda temporary: pyarrow.csv.write_csv(rows, temporary))
    else:
        write_with(path, lambda temporary: parquet.write_table(temporary, rows))
