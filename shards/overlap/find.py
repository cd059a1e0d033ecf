"""Images and patients that two shard sets share: by key, by the name of the source file, by picture, by patient id.

Legend: N rows of one set, M of the other, P pairs of images of which something says that they are one.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from shards import parquet
from shards.convert.rows import among, each, place
from shards.convert.sources import without_ending
from shards.errors import InputError
from shards.format import INDEX, Card, file_sha256
from shards.overlap import fingerprint
from shards.overlap.near import near_pairs
from shards.overlap.pictures import Pictures, Seen, look
from shards.processes import cores
from shards.progress import Progress
from shards.read.card import read_card
from shards.read.stage import stage

pc: Any = pyarrow.compute  # its functions are made at import, unseen by type checkers

_COLUMNS = ("key", "split", "patient_id", "source", "shard", "offset", "size")


@dataclass(frozen=True)
class Side:
    """One of the two sets."""

    where: str
    """Its folder or address, as the user named it."""
    card: Card
    index: pa.Table
    """`_COLUMNS` of its index."""
    seen: Seen | None
    """What its images show; None: not looked at, or compared already."""

    def text(self, column: str, rows: np.ndarray) -> list[str]:
        """A column of some rows, int64 (B,)."""
        return self.index[column].take(pa.array(rows)).to_pylist()

    @functools.cached_property
    def splits(self) -> np.ndarray:
        """The split of every row, text (N,)."""
        return self.index["split"].to_numpy(zero_copy_only=False).astype(str)

    def splits_of(self, patients: set[str]) -> dict[str, set[str]]:
        """The splits that hold images of some patients."""
        wanted = pc.is_in(self.index["patient_id"], value_set=pa.array(sorted(patients), pa.large_string()))
        found = self.index.filter(wanted).group_by(["patient_id", "split"]).aggregate([])
        splits: dict[str, set[str]] = {}
        for patient, split in zip(found["patient_id"].to_pylist(), found["split"].to_pylist(), strict=True):
            splits.setdefault(patient, set()).add(split)
        return splits


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """What two sets share."""

    one: Side
    other: Side
    rows: np.ndarray
    """Row in the first set, int64 (P,)."""
    others: np.ndarray
    """Row in the other, int64 (P,)."""
    by_key: np.ndarray
    """bool (P,): they have one key."""
    by_name: np.ndarray
    """bool (P,): the files that they were made from have one name."""
    by_picture: np.ndarray | None
    """bool (P,): they show one picture; None: not looked at."""
    bits: np.ndarray
    """Bits in which the hashes differ, int64 (P,); -1: not looked at, or of nearly one grey."""
    correlation: np.ndarray
    """Of the thumbnails' fine structure, float32 (P,) in [-1, 1]; NaN where `bits` is -1."""
    flat: int
    """Images of nearly one grey, of both sets, whose pictures were not compared."""
    same_ids: frozenset[str] = frozenset()
    """Patient ids that both sets have; empty where one set knows no patients."""

    @functools.cached_property
    def shared(self) -> np.ndarray:
        """Which pairs count as one image, bool (P,): by what they show where that is known, else by key or name."""
        named = self.by_key | self.by_name
        return named if self.by_picture is None else np.where(self.bits < 0, named, self.by_picture)

    @functools.cached_property
    def ids_agree(self) -> bool:
        """Whether one patient id in both sets is one person: most shared images say so, or both are of one source."""
        if self.shared.any():
            mine, theirs = self._patients_of_pairs
            return 2 * sum(a == b for a, b in zip(mine, theirs, strict=True)) >= len(mine)
        if len(self.rows):  # same name, different pictures: names mean nothing between these sets
            return False
        return bool(self.one.card.source) and self.one.card.source == self.other.card.source

    @functools.cached_property
    def _patients_of_pairs(self) -> tuple[list[str], list[str]]:
        return (
            self.one.text("patient_id", self.rows[self.shared]),
            self.other.text("patient_id", self.others[self.shared]),
        )

    @functools.cached_property
    def patients(self) -> list[tuple[str, str]]:
        """One person's id in either set, sorted: who shares an image, and where `ids_agree` who shares an id."""
        if not (self.one.card.patients_known and self.other.card.patients_known):
            return []
        found = set(zip(*self._patients_of_pairs, strict=True))
        return sorted(found | ({(name, name) for name in self.same_ids} if self.ids_agree else set()))

    @functools.cached_property
    def patient_splits(self) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
        """The splits that the ids in `patients` are in, of either set."""
        mine, theirs = ({pair[place] for pair in self.patients} for place in (0, 1))
        return self.one.splits_of(mine), self.other.splits_of(theirs)

    def images_in(self, mine: Sequence[str], theirs: Sequence[str]) -> int:
        """How many images of the first set in one of its splits `mine` are in one of the other's splits `theirs`."""
        pairs = self.shared & np.isin(self.one.splits[self.rows], mine)
        pairs &= np.isin(self.other.splits[self.others], theirs)
        return len(np.unique(self.rows[pairs]))

    def patients_in(self, mine: Sequence[str], theirs: Sequence[str]) -> int:
        """How many patients of the first set with images in `mine` have images of the other set in `theirs`."""
        ours, others = self.patient_splits
        return len({a for a, b in self.patients if ours[a] & set(mine) and others[b] & set(theirs)})


def open_side(where: str, *, pictures: bool, workers: int | None, say: Callable[[str], None]) -> Side:
    """Read the names of a set, and with `pictures` every image.

    Args:
        where: a folder, or a URL, which is fetched first (see `shards.read.stage`).
        pictures: look at the images.
        workers: processes; None: one per core.
        say: takes progress lines.

    Raises:
        InputError: no shard set, a changed index, an image that cannot be read.
        FailedError: the server could not be reached in three tries.
    """
    path = stage(where)
    card = read_card(path)
    index = parquet.read_table(path / INDEX, _COLUMNS)
    texts = {name: index[name].cast(pa.large_string()) for name in _COLUMNS[:5]}  # one kind in both sets
    index = pa.table({**texts, **{name: index[name] for name in _COLUMNS[5:]}})
    if file_sha256(path / INDEX) != card.index_sha256:
        raise InputError(f"{path / INDEX} was changed or damaged; `cxrdist verify {path}` says more")
    return Side(where, card, index, look(path, index, workers=workers, say=say) if pictures else None)


def compare(one: Side, other: Side, *, workers: int | None, say: Callable[[str], None]) -> Overlap:
    """Find what two sets share.

    Args:
        one: the first set.
        other: the other; both were looked at, or neither.
        workers: threads that compare hashes; None: one per core.
        say: takes progress lines.

    Raises:
        InputError: they are one set; far too many images look alike.
    """
    if one.card.sha256 == other.card.sha256:
        raise InputError(f"{one.where} and {other.where} are the same shard set (hash {one.card.sha256[:12]})")
    width = max(1, other.index.num_rows)
    keys = _codes(_same(one.index["key"], other.index["key"]), width)
    names = _codes(_same(*_file_names(one, other)), width)
    looked = None
    if one.seen is not None and other.seen is not None:
        looked = _same_pictures(one.seen, other.seen, width, workers, say)
    codes = np.unique(np.concatenate([keys, names, *([] if looked is None else [looked])]))
    rows, others = np.divmod(codes, width)
    bits, correlation = _distances(one.seen, other.seen, rows, others)
    same_ids: frozenset[str] = frozenset()
    if one.card.patients_known and other.card.patients_known:
        mine, theirs = (pc.unique(side.index["patient_id"]) for side in (one, other))
        same_ids = frozenset(mine.filter(pa.array(among(mine, theirs))).to_pylist())
    return Overlap(
        one=replace(one, seen=None),  # thumbnails are large
        other=replace(other, seen=None),
        rows=rows,
        others=others,
        by_key=np.isin(codes, keys),
        by_name=np.isin(codes, names),
        by_picture=None if looked is None else np.isin(codes, looked),
        bits=bits,
        correlation=correlation,
        flat=sum(side.seen.flat for side in (one, other) if side.seen),
        same_ids=same_ids,
    )


def _codes(pairs: tuple[np.ndarray, np.ndarray], width: int) -> np.ndarray:
    """Pairs of rows as single numbers, int64 (P,)."""
    return pairs[0] * width + pairs[1]


def _same(mine: pa.ChunkedArray | pa.Array, theirs: pa.ChunkedArray | pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Rows of equal names in two columns, in which no name occurs twice; null does not count as a name."""
    at_mine, at_theirs = (np.flatnonzero(names.is_valid().to_numpy(zero_copy_only=False)) for names in (mine, theirs))
    at = place(mine.drop_null(), theirs.drop_null())
    hit = np.flatnonzero(at.is_valid().to_numpy(zero_copy_only=False))
    return at_mine[hit], at_theirs[at.take(pa.array(hit)).to_numpy(zero_copy_only=False)]


def _file_names(one: Side, other: Side) -> tuple[pa.Array, pa.Array]:
    """The source files' names without folders, or with as many as it takes to tell all files of both sets apart."""
    paths = [[without_ending(source) for source in each(side.index["source"])] for side in (one, other)]
    parts = max(map(_parts_needed, paths))
    return tuple(_unique_tails(some, parts) for some in paths)  # pyright: ignore[reportReturnType]


def _tail(path: str, parts: int) -> str:
    return "/".join(path.split("/")[-parts:])


def _parts_needed(paths: Sequence[str]) -> int:
    """How many of its last parts tell each path from all others."""
    longest = max((path.count("/") + 1 for path in paths), default=1)
    return next((n for n in range(1, longest) if len({_tail(path, n) for path in paths}) == len(paths)), longest)


def _unique_tails(paths: Sequence[str], parts: int) -> pa.Array:
    tails = [_tail(path, parts) for path in paths]
    times = Counter(tails)
    return pa.array([tail if times[tail] == 1 else None for tail in tails], pa.string())


def _same_pictures(one: Seen, other: Seen, width: int, workers: int | None, say: Callable[[str], None]) -> np.ndarray:
    """Codes of the pairs that show one picture, wholes or one's whole and the other's middle."""
    kinds = [(one.whole, other.whole), (one.middle, other.whole), (one.whole, other.middle)]
    found = [np.empty(0, np.int64)]
    with Progress(sum(len(mine.rows) for mine, _ in kinds), "compared", say) as progress:
        for mine, theirs in kinds:
            at, there, _ = near_pairs(
                mine.hashes,
                theirs.hashes,
                most=fingerprint.MOST_BITS,
                most_coarse=fingerprint.MOST_COARSE_BITS,
                threads=workers or cores(),
                add=progress.add,
            )
            alike = _likeness(mine, theirs, at, there) >= fingerprint.LIKE
            found.append(mine.rows[at[alike]] * width + theirs.rows[there[alike]])
    return np.unique(np.concatenate(found))


_BATCH = 1 << 14


def _likeness(mine: Pictures, theirs: Pictures, at: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Correlations of pairs, float32 (P,)."""
    out = np.empty(len(at), np.float32)
    for first in range(0, len(at), _BATCH):
        some = slice(first, first + _BATCH)
        out[some] = fingerprint.likeness(mine.thumbnails[at[some]], theirs.thumbnails[there[some]])
    return out


def _distances(
    one: Seen | None, other: Seen | None, rows: np.ndarray, others: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Bits and correlation of pairs: of the two whole images, or of a middle where that fits better."""
    bits, correlation = np.full(len(rows), -1, np.int64), np.full(len(rows), np.nan, np.float32)
    if one is None or other is None:
        return bits, correlation
    for mine, theirs in ((one.whole, other.whole), (one.middle, other.whole), (one.whole, other.middle)):
        at, there = np.searchsorted(mine.rows, rows), np.searchsorted(theirs.rows, others)
        pairs = np.flatnonzero(_holds(mine.rows, at, rows) & _holds(theirs.rows, there, others))
        differing = np.bitwise_count(mine.hashes[at[pairs]] ^ theirs.hashes[there[pairs]]).sum(axis=1, dtype=np.int64)
        likeness = _likeness(mine, theirs, at[pairs], there[pairs])
        better = (bits[pairs] < 0) | (likeness > correlation[pairs])
        bits[pairs[better]], correlation[pairs[better]] = differing[better], likeness[better]
    return bits, correlation


def _holds(sorted_rows: np.ndarray, at: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Whether the place where a row would stand in ascending rows is its own, bool (P,)."""
    if not len(sorted_rows):
        return np.zeros(len(rows), bool)
    return sorted_rows[np.minimum(at, len(sorted_rows) - 1)] == rows
