"""A flipped bit in the files of a shard set is an error that names the file, never another label."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from shards import InputError, ShardSet, parquet
from shards.read.index import Index


def flipped(data: bytes, seed: int) -> bytes:
    """The data with one bit of it changed."""
    where = random.Random(seed).randrange(8 * len(data))
    changed = bytearray(data)
    changed[where // 8] ^= 1 << where % 8
    return bytes(changed)


def test_every_single_bit_of_the_index_is_compared_with_the_card(make_set, tmp_path: Path) -> None:
    make_set(tmp_path / "set")
    file = tmp_path / "set" / "index.parquet"
    whole = file.read_bytes()
    for seed in range(60):
        file.write_bytes(flipped(whole, seed))
        with pytest.raises(InputError, match=r"index\.parquet"):
            ShardSet(tmp_path / "set")
    file.write_bytes(whole)
    assert len(ShardSet(tmp_path / "set")) == 53


@pytest.mark.parametrize("mapped", [False, True])
def test_an_index_of_another_content_is_refused_with_both_hashes(make_set, tmp_path: Path, mapped: bool) -> None:
    make_set(tmp_path / "set")
    with pytest.raises(InputError, match=r"its sha256 is [0-9a-f]{12}\.\.\., that of the card is aaaaaaaaaaaa\.\.\."):
        Index.open(tmp_path / "set", mapped=mapped, sha256="a" * 64)
    assert not list((tmp_path / "set").glob(".index-*"))


def test_a_mapped_copy_remembers_its_content_and_spares_the_second_hash(make_set, tmp_path: Path, monkeypatch) -> None:
    make_set(tmp_path / "set")
    wanted = ShardSet(tmp_path / "set").card.index_sha256
    Index.open(tmp_path / "set", mapped=True, sha256=wanted)
    monkeypatch.setattr("shards.read.index_cache._columns", None)  # neither decoded nor hashed again
    assert Index.open(tmp_path / "set", mapped=True, sha256=wanted).n == 53


def test_a_mapped_copy_of_another_file_of_the_same_size_and_time_is_made_again(make_set, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 1)):
        make_set(tmp_path / name, seed=seed)
    first, second = (tmp_path / name / "index.parquet" for name in "ab")
    assert ShardSet(tmp_path / "a").card.index_sha256 != ShardSet(tmp_path / "b").card.index_sha256
    size = max(first.stat().st_size, second.stat().st_size)
    wanted = [ShardSet(tmp_path / name).card.index_sha256 for name in "ab"]
    Index.open(tmp_path / "a", mapped=True, sha256=wanted[0])
    made = next((tmp_path / "a").glob(".index-*"))
    first.write_bytes(second.read_bytes())
    os.utime(first, ns=(0, 0))
    made.rename(made.with_name(f".index-{made.name.split('-')[1]}-{first.stat().st_size:x}-0"))
    index = Index.open(tmp_path / "a", mapped=True, sha256=wanted[1])
    expected = Index.open(tmp_path / "b", mapped=False)
    assert size and np.array_equal(index.labels_matrix(), expected.labels_matrix())


def test_a_bit_flipped_in_a_written_table_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "rejects.parquet"
    table = pa.table({"source": [f"images/{i}.png" for i in range(400)], "x": np.arange(400) / 7})
    parquet.write_table(file, table)
    whole = file.read_bytes()
    assert parquet.read_table(file).equals(table)
    refused = 0
    for seed in range(200):
        file.write_bytes(flipped(whole, seed))
        try:
            assert parquet.read_table(file, ("source", "x")).equals(table), seed
        except InputError as error:
            refused += 1
            assert "rejects.parquet" in str(error) and "\n" not in str(error)
    assert refused > 150
