"""Tables in files say what tables in memory say."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from shards import FailedError, InputError
from shards.convert import rows, spill
from shards.convert.rows import alphabetical, coalesced, groups, keep, looked_up, taken


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A folder for files, into which even small tables go."""
    monkeypatch.setattr(spill, "KEPT", 50)
    monkeypatch.setattr(spill, "BATCH", 40)
    monkeypatch.setattr(rows, "_FEW", 64)
    with spill.spilling(tmp_path):
        yield tmp_path


def table(count: int = 1003) -> pa.Table:
    """Names, every third one missing, and small numbers."""
    names = [f"n{number * 7919 % count}ä" if number % 3 else None for number in range(count)]
    keys = [f"k{number}" for number in range(count)]
    return pa.table({"name": names, "key": keys, "small": pa.array([number % 5 for number in range(count)], pa.int8())})


def test_a_stored_table_is_the_same_and_leaves_no_file(small: Path) -> None:
    plain = table()
    stored = spill.stored(iter(plain.to_batches(max_chunksize=17)), plain.schema)
    assert stored["name"].num_chunks > 10 and list(small.iterdir()) == []
    gc.collect()
    spill.forget()
    assert stored.equals(plain)
    assert spill.stored(iter([]), plain.schema).num_rows == 0


def test_rows_in_another_order_are_the_rows_taken(small: Path) -> None:
    plain = table()
    stored = spill.stored(iter(plain.to_batches(max_chunksize=17)), plain.schema)
    for count in (1003, 400, 30):
        order = np.random.default_rng(count).permutation(1003)[:count]
        assert spill.reordered(stored, order).equals(plain.take(pa.array(order)))
        whole = spill.contiguous(spill.reordered(stored, order)["name"])
        assert whole.equals(pa.concat_arrays(plain["name"].take(pa.array(order)).chunks))
        assert taken(stored["name"], order).equals(whole)


def test_columns_from_files_are_filtered_filled_sorted_and_looked_up_as_in_memory(small: Path) -> None:
    plain = table()
    stored = spill.stored(iter(plain.to_batches(max_chunksize=17)), plain.schema)
    mask = np.arange(1003) % 4 > 0
    assert keep(stored, mask).equals(plain.filter(pa.array(mask)))
    wanted = [name or key for name, key in zip(plain["name"].to_pylist(), plain["key"].to_pylist(), strict=True)]
    assert coalesced(stored, "name", "key").to_pylist() == wanted
    assert alphabetical(stored["key"]).to_pylist() == sorted(plain["key"].to_pylist())
    at = [5, None, 1002, 5, 0] * 50
    values = plain["key"].to_pylist()
    assert looked_up(stored["key"], pa.array(at)).to_pylist() == [None if row is None else values[row] for row in at]


def test_groups_are_the_equal_names_and_begin_where_they_first_stand(small: Path) -> None:
    names = [f"p{number % 37}" if number % 2 else f"q{number % 53}" for number in range(1003)]
    code, first = groups(pa.chunked_array([names[:400], names[400:]]))
    for number, name in enumerate(names):
        assert names[first[code[number]]] == name and first[code[number]] == names.index(name)
    assert len(first) == len(set(names))


def test_missing_names_are_a_group_of_their_own() -> None:
    code, first = groups(pa.array(["a", None, "a", None]))
    assert code[0] == code[2] != code[1] == code[3] and sorted(first.tolist()) == [0, 1]


def test_more_text_than_one_column_can_hold_is_one_clear_error() -> None:
    large = pa.array(["x" * (1 << 26)])
    with pytest.raises(InputError, match="33 rows hold more than 2 GiB of text .*several shard sets"):
        spill.contiguous(pa.chunked_array([large] * 33))


def test_a_full_disk_while_planning_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(FailedError, match="no space left to plan in .*make room"), spill.spilling(tmp_path):
        with open("/dev/full", "wb", buffering=0) as full:
            full.write(b"x")
