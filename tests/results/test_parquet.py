"""A flipped bit in a file of results is an error that names the file, never another number."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from results.collect import collect, write_collected
from results.errors import InputError
from results.schema import METRICS, read_metrics, read_predictions, write_metrics, write_predictions


def _predictions(path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = 600
    table = {
        "run": ["r"] * rows,
        "dataset": ["d"] * rows,
        "split": ["test"] * rows,
        "key": [f"k{i}" for i in range(rows)],
        "patient_id": [f"p{i // 2}" for i in range(rows)],
        "label": ["edema"] * rows,
        "y_true": pa.array(rng.integers(0, 2, rows), pa.int8()),
        "y_score": pa.array(rng.random(rows), pa.float32()),
    }
    write_predictions(path, table)


def _metrics(path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [
        {"run": "r", "signature": f"s{i}", "job": "finetune", "label": "edema", "metric": "auroc", "value": value}
        for i, value in enumerate(rng.random(300))
    ]
    write_metrics(path, rows)


def _collected(path: Path) -> None:
    _metrics(path.with_name("metrics.parquet"))
    write_collected(path, collect(path.with_name("metrics.parquet"))[0])


@pytest.mark.parametrize(
    ("name", "write", "read"),
    [
        ("predictions.parquet", _predictions, read_predictions),
        ("metrics-x.parquet", _metrics, read_metrics),
        ("all.parquet", _collected, lambda path: collect(path)[0]),
    ],
)
def test_a_flipped_bit_is_refused_or_changes_nothing(tmp_path, name, write, read):
    file = tmp_path / name
    write(file)
    whole, expected = file.read_bytes(), read(file)
    refused = 0
    for seed in range(120):
        where = random.Random(seed).randrange(8 * len(whole))
        changed = bytearray(whole)
        changed[where // 8] ^= 1 << where % 8
        file.write_bytes(changed)
        try:
            found = read(file)
        except InputError as error:
            refused += 1
            assert name in str(error) and "\n" not in str(error)
            continue
        for column in ("value", "y_score", "y_true", "label", "metric", "key", "patient_id", "signature"):
            if column in expected.column_names:
                assert found[column].equals(expected[column]), (seed, where, column)
    assert refused > 60


def test_files_without_check_sums_are_read_as_before(tmp_path):
    rows = [{"run": "r", "label": "edema", "metric": "auroc", "value": 0.5}]
    pq.write_table(pa.Table.from_pylist(rows, schema=METRICS), tmp_path / "metrics.parquet")
    assert read_metrics(tmp_path / "metrics.parquet")["value"].to_pylist() == [0.5]


@pytest.mark.parametrize("version", [b"\xff\xfe", b"", "²".encode(), b"99", b"-1"])
def test_a_version_that_is_no_number_is_refused_in_one_line(tmp_path, version):
    file = tmp_path / "metrics.parquet"
    _metrics(file)
    table = pq.read_table(file)
    metadata = {**table.schema.metadata, b"cxrdist.schema_version": version}
    pq.write_table(table.replace_schema_metadata(metadata), file)
    with pytest.raises(InputError, match="metrics version .*this cxrdist reads up to"):
        read_metrics(file)


def test_results_that_went_through_pandas_are_results_still(tmp_path):
    for write, read, name in ((_predictions, read_predictions, "p"), (_metrics, read_metrics, "m")):
        write(tmp_path / f"{name}.parquet")
        kept = read(tmp_path / f"{name}.parquet")
        frame = kept.to_pandas()
        frame[frame.columns].to_parquet(tmp_path / f"{name}-pandas.parquet")
        again = read(tmp_path / f"{name}-pandas.parquet")
        assert again.equals(kept) and again.schema.equals(kept.schema)
        frame.iloc[::2].to_parquet(tmp_path / "half.parquet")  # pandas writes its index beside the columns
        assert len(read(tmp_path / "half.parquet")) == len(kept) // 2
        frame.drop(columns="label").to_parquet(tmp_path / "less.parquet")
        with pytest.raises(InputError, match="less.parquet is not a"):
            read(tmp_path / "less.parquet")
