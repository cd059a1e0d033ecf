"""Several rows of one image: a row per box, per report or per reader, made into one row.

Legend of shapes: N rows, G images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from shards.convert.rows import among, first_of_each, keep, one, schema, taken
from shards.convert.spill import reordered, stored, stored_column
from shards.errors import InputError
from shards.format import LABEL

pc: Any = pyarrow.compute  # its functions are made at import, unseen by type checkers

READERS = ("majority", "any", "all")
"""How the readers of one image are joined, per label, without the votes that do not mention it. majority: what more
than half say; any: positive where one says so; all: positive where all say so; -1 (uncertain) where that decides
nothing. `no_finding`, being an absence, is positive under any where all say so, and under all where one does."""
READER = "reader"
"""Column beside the others (`Sample.beside`) that says which reader's row it is."""
NO_FINDING = LABEL + "no_finding"
_MENTION = 3
"""Most contradictions that an error shows."""


def unite(
    rows: pa.Table,
    *,
    by: pa.ChunkedArray | pa.Array | None = None,
    where: str,
    findings: bool = False,
    readers: str | None = None,
    fix: str = "",
) -> pa.Table:
    """Return one row per image, at the place of its first.

    Cells that are blank in one row are taken from another. What else two rows may differ in is decided by the options;
    in what stands beside the samples (`shards.convert.rows.gather`) they may.

    Args:
        rows: as `shards.convert.rows.gather` makes them.
        by: what makes two rows one, (N,); None: `source`.
        where: name of the table, for messages.
        findings: a row names only some of the findings, so a finding of any row counts.
        readers: every row is a vote, joined as READERS says.
        fix: what a message about a contradiction advises.

    Raises:
        InputError: rows of one image contradict each other; the message counts the images and names the first.
    """
    names = rows["source"] if by is None else by
    first = first_of_each(names)
    if first.all():
        return rows
    group = _groups(names, names.filter(pa.array(first & among(names, names.filter(pa.array(~first))))))
    order = np.argsort(group, kind="stable")
    order = order[np.searchsorted(group[order], 0) :]  # rows of images with one row are in group -1
    starts = np.flatnonzero(np.r_[True, np.diff(group[order]) > 0])
    some = reordered(rows, order)
    labels = [name for name in rows.column_names if name.startswith(LABEL)]
    joined: dict[str, pa.Array] = {}
    contradictions: dict[int, str] = {}
    for name in rows.column_names:
        if name in labels and readers is not None:
            joined[name] = _votes(some[name], starts, _rule(name, readers))
        elif name in labels and findings:
            joined[name] = _reduced(some[name], starts, np.maximum)
        else:
            joined[name] = _agreed(some, name, starts, contradictions)
    if findings and NO_FINDING in labels and readers is None:
        _absence(joined, some, starts, labels, contradictions)
    if contradictions:
        _refuse(contradictions, some["source"].take(pa.array(starts)), where, fix)
    kept = keep(rows, first)
    remaining = kept["source"] if by is None else names.filter(pa.array(first))
    return _put(kept, remaining, taken(names, order[starts]), joined)


def _groups(names: pa.ChunkedArray | pa.Array, repeated: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Return int (N,): number of the repeated name that a row has, -1 where its name stands once."""
    return pc.fill_null(one(pc.index_in(names, value_set=one(repeated))), -1).to_numpy(zero_copy_only=False)


def _put(
    kept: pa.Table, names: pa.ChunkedArray | pa.Array, united: pa.Array, joined: Mapping[str, pa.Array]
) -> pa.Table:
    """Return the first rows with the joined cells in the rows that stood several times."""
    which = one(pc.index_in(names, value_set=united))

    def put() -> Iterator[pa.RecordBatch]:
        start = 0
        for batch in kept.to_batches():
            here = which.slice(start, batch.num_rows)
            start += batch.num_rows
            mask, rows = here.is_valid(), here.drop_null()
            columns = [pc.replace_with_mask(batch[name], mask, joined[name].take(rows)) for name in kept.column_names]
            yield pa.record_batch(columns, schema=kept.schema)

    return stored(put(), kept.schema)


def by_reader(rows: pa.Table) -> pa.ChunkedArray:
    """Return what rows of one image and one reader have in common, (N,)."""
    joined = (pc.binary_join_element_wise(batch["source"], batch[READER], "\0") for batch in rows.to_batches())
    return stored_column(joined, pa.string())


def _agreed(some: pa.Table, name: str, starts: np.ndarray, contradictions: dict[int, str]) -> pa.Array:
    """Return the one value of every group, null where all are blank; note the groups that hold two."""
    must_agree = name != "key" and (name in schema([]).names or name.startswith(LABEL))
    coded = one(some[name]).dictionary_encode()
    codes = pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    highest = np.maximum.reduceat(codes, starts)
    lowest = np.minimum.reduceat(np.where(codes < 0, np.iinfo(np.int64).max, codes), starts)
    for group in np.flatnonzero((lowest < highest) & must_agree):
        values = " and ".join(sorted(repr(coded.dictionary[int(code[group])].as_py()) for code in (lowest, highest)))
        contradictions.setdefault(int(group), f"{name.removeprefix(LABEL)} is {values}")
    return coded.dictionary.take(pa.array(highest, mask=highest < 0))


def _reduced(column: pa.ChunkedArray, starts: np.ndarray, largest: Any) -> pa.Array:
    """Return the largest value of every group, null where all are null."""
    blank = np.iinfo(np.int8).min
    values = pc.fill_null(one(column), blank).to_numpy(zero_copy_only=False)
    found = largest.reduceat(values, starts)
    return pa.array(found, column.type, mask=found == blank)


def _rule(name: str, readers: str) -> str:
    other = {"any": "all", "all": "any"}
    return other.get(readers, readers) if name == NO_FINDING else readers


def _votes(column: pa.ChunkedArray, starts: np.ndarray, rule: str) -> pa.Array:
    """Return 1, 0, -1 or null per group from the votes of its rows."""

    def count(value: int) -> np.ndarray:
        return np.add.reduceat(pc.fill_null(pc.equal(one(column), value), False).to_numpy(zero_copy_only=False), starts)

    yes, no = count(1).astype(int), count(0).astype(int)
    votes = yes + no + count(-1)
    decided: dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]] = {
        "majority": lambda: (2 * yes > votes, 2 * no > votes),
        "any": lambda: (yes > 0, no == votes),
        "all": lambda: (yes == votes, no > 0),
    }
    positive, negative = decided[rule]()
    values = np.where(positive, 1, np.where(negative, 0, -1)).astype(np.int8)
    return pa.array(values, mask=votes == 0)


def _absence(
    joined: dict[str, pa.Array], some: pa.Table, starts: np.ndarray, labels: Sequence[str], found: dict[int, str]
) -> None:
    """Note the images that one row calls free of findings and another not."""
    free = pc.fill_null(joined[NO_FINDING], 0).to_numpy(zero_copy_only=False) == 1
    for name in labels:
        if name != NO_FINDING:
            both = free & (pc.fill_null(joined[name], 0).to_numpy(zero_copy_only=False) == 1)
            for group in np.flatnonzero(both):
                found.setdefault(int(group), f"no_finding and {name.removeprefix(LABEL)}")


def _refuse(contradictions: Mapping[int, str], sources: pa.ChunkedArray, where: str, fix: str) -> None:
    shown = [f"{sources[group].as_py()}: {what}" for group, what in sorted(contradictions.items())[:_MENTION]]
    several = len(contradictions) > 1
    raise InputError(
        f"{where}: the rows of {len(contradictions)} image{'s' if several else ''} contradict each other "
        f"({'; '.join(shown)}{'; ...' if len(contradictions) > _MENTION else ''}){fix and f'; {fix}'}"
    )
