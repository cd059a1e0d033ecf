from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import cli
from shards import InputError
from shards.format import card_bytes, parse_card
from shards.read.card import read_card
from shards.verify import verify
from tests.shards.convert.conftest import make, write_nih


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from shards.convert.config import NihConfig

    root = tmp_path_factory.mktemp("verify")
    write_nih(root / "src")
    out = root / "set"
    make(NihConfig(src=str(root / "src"), out=str(out), size=32, shard_size=6, workers=1, val_fraction=0.3))
    return out


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "set")
    return tmp_path / "set"


def problems(path: Path) -> list[str]:
    return verify(path, workers=1)


def forge(path: Path, **changes) -> None:
    """Change the card and make it pass its own checksum, as an attentive vandal would."""
    import dataclasses

    card = read_card(path)
    (path / "dataset.json").write_bytes(card_bytes(dataclasses.replace(card, **changes)))


def rewrite_index(path: Path, table: pa.Table) -> None:
    pq.write_table(table, path / "index.parquet")
    from shards.format import file_sha256

    forge(path, index_sha256=file_sha256(path / "index.parquet"))


def test_a_whole_set_has_no_problem(whole: Path) -> None:
    assert problems(whole) == []
    assert verify(whole, workers=2) == []


def test_any_flipped_byte_of_any_file_is_found(whole: Path, copy: Path) -> None:
    rng = np.random.default_rng(0)
    for path in sorted(copy.iterdir()):
        data = path.read_bytes()
        for position in {0, len(data) - 1, *rng.integers(0, len(data), 4).tolist()}:
            changed = bytearray(data)
            changed[position] ^= 1 << int(rng.integers(8))
            path.write_bytes(bytes(changed))
            try:
                assert problems(copy), f"{path.name}, byte {position}"
            except InputError as error:
                assert path.name == "dataset.json", error
        path.write_bytes(data)
    assert problems(copy) == []


def test_every_bit_of_the_card_counts(whole: Path) -> None:
    data = (whole / "dataset.json").read_bytes()
    for position in range(0, len(data), 7):
        changed = bytearray(data)
        changed[position] ^= 2
        with pytest.raises(InputError):
            parse_card(bytes(changed), "card")


def test_missing_and_foreign_files_are_named(copy: Path) -> None:
    (copy / "test-000000.tar").rename(copy / "test-000099.tar")
    (copy / "rejects.parquet").unlink()
    found = problems(copy)
    assert "test-000000.tar is missing" in found and "rejects.parquet is missing" in found
    assert "test-000099.tar does not belong to the set" in found


def test_missing_index_is_a_problem_and_missing_card_no_set(copy: Path) -> None:
    (copy / "index.parquet").unlink()
    assert any("index.parquet is missing" in line for line in problems(copy))
    (copy / "dataset.json").unlink()
    with pytest.raises(InputError, match="not a shard set"):
        problems(copy)


def test_a_cut_off_tar_is_named(copy: Path) -> None:
    path = copy / "train-000000.tar"
    path.write_bytes(path.read_bytes()[:5000])
    assert any(line.startswith("train-000000.tar") for line in problems(copy))


def test_wrong_counts_are_found_though_all_hashes_fit(copy: Path) -> None:
    table = pq.read_table(copy / "index.parquet")
    rewrite_index(copy, table.slice(1))
    found = problems(copy)
    assert any("has 23 rows, dataset.json says 24" in line for line in found)
    assert any("rows in index.parquet" in line for line in found)


def test_wrong_byte_ranges_labels_and_keys_are_found_though_all_hashes_fit(copy: Path) -> None:
    frame = pd.read_parquet(copy / "index.parquet")
    frame.loc[0, "offset"] += 512
    frame.loc[1, "label_mass"] = 1
    frame.loc[2, "label_hernia"] = 5
    frame.loc[4, "key"] = frame.loc[3, "key"]
    rewrite_index(copy, pa.Table.from_pandas(frame, pq.read_schema(copy / "index.parquet"), preserve_index=False))
    found = "\n".join(problems(copy))
    assert "lies at" in found and "label mass: 1 positive" in found and "[5]" in found
    assert "1 keys occur more than once" in found


def test_a_patient_in_two_splits_is_found_though_all_hashes_fit(copy: Path) -> None:
    frame = pd.read_parquet(copy / "index.parquet")
    frame.loc[frame.split == "train", "patient_id"] = frame.loc[frame.split == "test", "patient_id"].iloc[0]
    rewrite_index(copy, pa.Table.from_pandas(frame, pq.read_schema(copy / "index.parquet"), preserve_index=False))
    assert "1 patients are in both train and test, the card says 0" in problems(copy)


def test_shared_patients_that_the_card_owns_up_to_are_a_warning(copy: Path) -> None:
    frame = pd.read_parquet(copy / "index.parquet")
    frame.loc[frame.split == "train", "patient_id"] = frame.loc[frame.split == "test", "patient_id"].iloc[0]
    rewrite_index(copy, pa.Table.from_pandas(frame, pq.read_schema(copy / "index.parquet"), preserve_index=False))
    forge(copy, shared_patients={"train/test": 1})
    told: list[str] = []
    found = verify(copy, workers=1, say=told.append)
    assert not any("patients are in both" in line for line in found)
    assert any("WARNING: 1 patients are in both train and test" in line for line in told)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("counts", {"train": 5}),
        ("counts", {"train": {"n": "5"}}),
        ("counts", {"train": {"n": 5, "labels": {"mass": {"positive": None}}}}),
        ("shards", ("train-000000.tar",)),
        ("shards", ({"name": "../train.tar", "split": "train", "n": 1, "bytes": 1, "sha256": "0"},)),
        ("shards", ({"name": "train-000000.tar", "split": "train", "n": 1.5, "bytes": 1, "sha256": "0"},)),
        ("files", ["rejects.parquet"]),
        ("files", {"/etc/passwd": "0"}),
        ("labels", (1,)),
        ("n_samples", True),
        ("mean", "0.5"),
        ("shared_patients", {"train/test": "two"}),
        ("name", None),
        ("name", "half of a pair: \ud83d"),
    ],
)
def test_a_card_of_another_shape_is_refused_when_it_is_read_though_its_check_sum_fits(
    copy: Path, field: str, value: object
) -> None:
    forge(copy, **{field: value})
    with pytest.raises(InputError, match=r"dataset\.json is damaged \(.*\): convert the dataset again"):
        read_card(copy)


def not_text() -> pa.Array:
    """One string that is no UTF-8."""
    return pa.StringArray.from_buffers(1, pa.py_buffer(np.array([0, 2], np.int32)), pa.py_buffer(b"\xff\xfe"))


@pytest.mark.parametrize("name", ["key", "split", "patient_id", "shard", "source"])
def test_text_of_the_index_that_is_no_text_is_a_problem(copy: Path, name: str) -> None:
    table = pq.read_table(copy / "index.parquet")
    column = pa.chunked_array([not_text(), *table[name].slice(1).chunks])
    rewrite_index(copy, table.set_column(table.column_names.index(name), name, column))
    assert any("index.parquet cannot be read" in line for line in problems(copy))


@pytest.mark.parametrize(
    ("name", "values", "says"),
    [
        ("shard", pa.array(range(24)), "column shard holds int64, not string"),
        ("offset", pa.array(["x"] * 24), "column offset holds string, not int64"),
        ("label_mass", pa.array(["x"] * 24), "column label_mass holds string, not int8"),
        ("size", pa.nulls(24, pa.int32()), "column size has 24 empty values"),
        ("split", pa.nulls(24, pa.string()), "column split has 24 empty values"),
    ],
)
def test_columns_of_another_kind_and_empty_ones_are_problems(
    copy: Path, name: str, values: pa.Array, says: str
) -> None:
    table = pq.read_table(copy / "index.parquet")
    rewrite_index(copy, table.set_column(table.column_names.index(name), name, values))
    assert f"index.parquet: {says}" in problems(copy)


def test_rejects_that_are_no_text_are_a_problem(copy: Path) -> None:
    pq.write_table(pa.table({"source": not_text(), "reason": pa.array(["x"])}), copy / "rejects.parquet")
    assert any("rejects.parquet cannot be read" in line for line in problems(copy))


def test_names_that_are_no_text_are_printed_with_escapes(copy: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    import tarfile

    (copy / "\udcff\udcfe.tar").write_bytes(b"")
    path = copy / "test-000000.tar"
    with tarfile.open(path) as held, tarfile.open(copy / "new", "w", format=tarfile.USTAR_FORMAT) as made:
        for number, info in enumerate(held):
            data = held.extractfile(info)
            info.name = f"\udcff{number}" if number < 2 else info.name
            made.addfile(info, data)
    (copy / "new").rename(path)
    assert cli.main(["verify", str(copy), "--workers", "1"]) == 1
    printed = capfdbinary.readouterr().out.decode()
    assert "\\udcff\\udcfe.tar does not belong to the set" in printed
    assert "test-000000.tar: 2 members missing, 2 unknown" in printed
