"""The index as columns: the same in memory and memory-mapped, built once, never half."""

from __future__ import annotations

import mmap
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards.errors import InputError
from shards.labels import NULL
from shards.read import index_cache
from shards.read.index import Index


@pytest.fixture
def folder(make_set, tmp_path: Path) -> Path:
    make_set(tmp_path / "set")
    return tmp_path / "set"


@pytest.fixture(params=[False, True], ids=["in memory", "mapped"])
def index(request, folder: Path) -> Index:
    return Index.open(folder, mapped=request.param)


def test_every_column_is_what_the_parquet_file_says(index: Index, folder: Path) -> None:
    table = pq.read_table(folder / "index.parquet").to_pylist()
    assert len(index) == len(table) == 53
    rows = np.arange(53)
    assert index.keys().tolist() == index.keys(rows).tolist() == [row["key"] for row in table]
    assert index.patient_id().tolist() == index.patient_id(rows).tolist() == [row["patient_id"] for row in table]
    assert [index.key(row) for row in range(53)] == [row["key"] for row in table]
    assert [tuple(index.splits)[code] for code in index.split] == [row["split"] for row in table]
    assert [index.shards[code] for code in index.shard] == [row["shard"] for row in table]
    assert index.offset.tolist() == [row["offset"] for row in table]
    assert index.size.tolist() == [row["size"] for row in table]
    assert index.view().tolist() == [row["view"] for row in table]
    assert index.sex(rows).tolist() == [row["sex"] for row in table]
    assert [None if np.isnan(age) else age for age in index.age()] == [row["age"] for row in table]
    for label in index.labels:
        expected = [NULL if row[f"label_{label}"] is None else row[f"label_{label}"] for row in table]
        assert index.label(label).tolist() == expected and index.label(label).dtype == np.int8
        assert NULL in expected  # the drawn labels hold all four values
    some = np.array([50, 2, 2])
    names = list(reversed(index.labels))
    assert np.array_equal(index.labels_matrix(names, some), np.stack([index.label(name)[some] for name in names], 1))
    assert index.labels_matrix().shape == (53, 2)


def test_rows_of_a_split_are_those_and_only_those(index: Index) -> None:
    found = np.concatenate([index.rows(split) for split in ("test", "train", "val")])
    assert np.array_equal(found, np.arange(53))
    for split in ("test", "train", "val"):
        assert {key.split("_")[0] for key in index.keys(index.rows(split))} == {split}
    with pytest.raises(InputError, match="no split 'holdout'"):
        index.rows("holdout")


def test_keys_are_found_in_the_order_asked(index: Index) -> None:
    keys = ["val_00003", "train_00000", "test_00010"]
    assert index.keys(index.find(keys)).tolist() == keys
    assert index.find(index.keys()).tolist() == list(range(53))
    with pytest.raises(InputError, match="no sample nobody .1 of 2"):
        index.find(["val_00003", "nobody"])


def test_an_unknown_label_is_refused_with_those_there_are(index: Index) -> None:
    with pytest.raises(InputError, match="no label 'gout'; it has pneumonia, edema"):
        index.label("gout")


def test_an_index_travels_as_its_path(index: Index) -> None:
    copy = pickle.loads(pickle.dumps(index))
    assert copy.mapped == index.mapped and np.array_equal(copy.offset, index.offset)


def test_columns_are_mapped_not_read_and_made_only_once(folder: Path) -> None:
    first = Index.open(folder, mapped=True)
    (made,) = folder.glob(".index-*")
    stamp = (made / "offset.npy").stat().st_mtime_ns
    again = Index.open(folder, mapped=True)
    for column in (again.offset, again.label("edema")):
        while isinstance(column.base, np.ndarray):
            column = column.base
        assert isinstance(column.base, mmap.mmap)
    assert (made / "offset.npy").stat().st_mtime_ns == stamp
    assert np.array_equal(first.size, again.size)


def test_a_changed_index_gets_new_columns_and_the_old_ones_go(folder: Path) -> None:
    Index.open(folder, mapped=True)
    table = pq.read_table(folder / "index.parquet")
    pq.write_table(table.slice(0, 40), folder / "index.parquet")
    assert len(Index.open(folder, mapped=True)) == 40
    assert len(list(folder.glob(".index-*"))) == 1


def test_a_read_only_shard_set_gets_its_columns_in_the_cache_folder(folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("CXRDIST_CACHE", str(tmp_path / "cache"))
    real = index_cache._build

    def build(
        parquet: Path, target: Path, sha256: str | None
    ) -> None:  # root may write anywhere, so say no for the file system
        if target.parent == folder:
            raise PermissionError(30, "Read-only file system")
        real(parquet, target, sha256)

    monkeypatch.setattr(index_cache, "_build", build)
    assert len(Index.open(folder, mapped=True)) == 53
    assert not list(folder.glob(".index-*"))
    assert len(list((tmp_path / "cache").glob("index-*/.index-*/meta.json"))) == 1
    monkeypatch.setattr(index_cache, "_build", None)
    assert len(Index.open(folder, mapped=True)) == 53


def test_a_build_killed_halfway_leaves_nothing_that_is_taken_for_whole(folder: Path, monkeypatch) -> None:
    real, calls = np.save, []

    def save(path, array, **options) -> None:
        calls.append(path)
        if len(calls) == 4:
            raise KeyboardInterrupt
        real(path, array, **options)

    monkeypatch.setattr(np, "save", save)
    with pytest.raises(KeyboardInterrupt):
        Index.open(folder, mapped=True)
    monkeypatch.undo()
    assert not list(folder.glob(".index-*"))
    assert len(Index.open(folder, mapped=True)) == 53


def test_processes_that_open_it_first_together_agree_and_import_no_pandas(folder: Path) -> None:
    code = "import sys; from shards.read.index import Index; i = Index.open(sys.argv[1], mapped=True)"
    code += "; print(i.offset.sum(), 'pandas' in sys.modules)"
    command = [sys.executable, "-c", code, str(folder)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    printed = {process.communicate(timeout=120)[0].strip() for process in running}
    assert {process.returncode for process in running} == {0}
    assert printed == {f"{Index.open(folder).offset.sum()} False"}, "pandas would cost each rank a second"
    assert len(list(folder.glob(".index-*"))) == 1


def test_a_sample_of_nobody_known_is_a_patient_of_its_own(folder: Path) -> None:
    table = pq.read_table(folder / "index.parquet")
    column = table.column_names.index("patient_id")
    patients = [None if i in (4, 5) else value for i, value in enumerate(table["patient_id"].to_pylist())]
    pq.write_table(table.set_column(column, "patient_id", pa.array(patients)), folder / "index.parquet")
    for mapped in (False, True):
        index = Index.open(folder, mapped=mapped)
        assert index.patient_id(np.array([4, 5])).tolist() == [index.key(4), index.key(5)]
        assert (index.patient == index.patient[4]).sum() == 1


def damage(folder: Path, how: str) -> None:
    path = folder / "index.parquet"
    table = pq.read_table(path)
    if how == "absent":
        path.unlink()
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif how == "text":
        path.write_text("key,split\n")
    elif how == "column":
        pq.write_table(table.drop_columns(["offset", "shard"]), path)
    elif how == "order":
        pq.write_table(table.take(np.random.default_rng(0).permutation(53)), path)
    elif how == "null":
        offsets = pa.array([None, *table["offset"].to_pylist()[1:]], pa.int64())
        pq.write_table(table.set_column(table.column_names.index("offset"), "offset", offsets), path)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("absent", "does not exist"),
        ("cut", "not a readable Parquet file"),
        ("text", "not a readable Parquet file"),
        ("column", "lacks the column.*shard, offset"),
        ("order", "not sorted by split"),
        ("null", "offset has 1 empty value"),
    ],
)
def test_a_damaged_index_is_one_clear_error(folder: Path, how: str, message: str) -> None:
    damage(folder, how)
    for mapped in (False, True):
        with pytest.raises(InputError, match=message) as caught:
            Index.open(folder, mapped=mapped)
        assert str(folder) in str(caught.value)


def test_an_empty_index_has_no_splits(folder: Path) -> None:
    table = pq.read_table(folder / "index.parquet")
    pq.write_table(table.slice(0, 0), folder / "index.parquet")
    index = Index.open(folder)
    assert len(index) == 0 and index.splits == {} and index.keys().tolist() == []
