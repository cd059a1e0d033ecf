"""Predictions become the same matrices whether their text is read as text or as dictionaries."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from results.schema import PREDICTIONS, read_predictions
from results.stats.predictions import ScoreMatrix, load_scores, score_matrices


def predictions(rows: int = 300) -> pa.Table:
    """Two labels of images of two splits and two datasets, in no order; a study has two images."""
    dice = np.random.default_rng(0)
    order = dice.permutation(2 * rows)
    image, label = order // 2, np.array(["edema", "mass"])[order % 2]
    columns = {
        "run": ["r"] * len(order),
        "dataset": [("nih", "own")[n % 3 // 2] for n in image],
        "split": [("test", "val")[n % 2] for n in image],
        "key": [f"k{n}" for n in image],
        "patient_id": [f"p{n // 4}" for n in image],
        "label": label,
        "y_true": (image + order) % 2,
        "y_score": dice.random(len(order)).astype(np.float32),
        "study_id": [f"s{n // 2}" if n % 5 else None for n in image],
        "view": ["PA"] * len(order),
        "sex": [None] * len(order),
        "age": [40.0] * len(order),
    }
    return pa.table(
        {name: pa.array(columns[name], kind) for name, kind in zip(PREDICTIONS.names, PREDICTIONS.types, strict=True)}
    )


def same(one: ScoreMatrix, other: ScoreMatrix) -> None:
    for field in dataclasses.fields(ScoreMatrix):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        assert np.array_equal(mine, theirs) if isinstance(mine, np.ndarray) else mine == theirs, field.name


@pytest.mark.parametrize("level", ["image", "study"])
@pytest.mark.parametrize("dataset", ["nih", "own"])
def test_a_file_of_many_parts_gives_the_matrices_of_its_text(tmp_path: Path, dataset: str, level: str) -> None:
    table = predictions()
    written = table.replace_schema_metadata(PREDICTIONS.metadata)
    pq.write_table(written, tmp_path / "predictions.parquet", row_group_size=70)
    assert pa.types.is_dictionary(read_predictions(tmp_path / "predictions.parquet", coded=True)["key"].type)
    found = load_scores(str(tmp_path / "metrics.parquet"), dataset, level=level)
    assert isinstance(found, ScoreMatrix)
    same(found, score_matrices(table, "test", level)[dataset, "test"])
    assert len(found.keys) < 150 and found.patients.min() == 0 and set(found.labels) == {"edema", "mass"}


def test_a_file_of_an_older_version_is_read_too(tmp_path: Path) -> None:
    older = {key: b"2" if key.endswith(b"version") else value for key, value in (PREDICTIONS.metadata or {}).items()}
    table = predictions().drop_columns(["study_id", "view", "sex", "age"]).replace_schema_metadata(older)
    pq.write_table(table, tmp_path / "predictions.parquet")
    found = load_scores(str(tmp_path / "metrics.parquet"), "nih")
    assert isinstance(found, ScoreMatrix)
    same(found, score_matrices(predictions(), "test")["nih", "test"])
