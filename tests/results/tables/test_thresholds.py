"""The table of threshold rules equals what the predictions give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from results.cells.options import Options
from results.errors import InputError
from results.schema import read_predictions
from results.stats.metrics import compute, pick_threshold
from results.tables.registry import build
from tests.results.grids import grid, lines


def test_thresholds_table_gives_each_rule_on_test_as_the_predictions_do(tmp_path: Path) -> None:
    results = grid(tmp_path, one={"labels": {"edema": 0.85}})
    rows = lines(build("thresholds", results, Options()))
    predicted = read_predictions(next(tmp_path.rglob("predictions.parquet"))).to_pylist()
    split = {
        name: (np.array([row["y_true"] for row in own]), np.array([row["y_score"] for row in own], np.float64))
        for name in ("val", "test")
        if (own := [row for row in predicted if row["split"] == name])
    }
    assert len(rows) == 5
    for names, cells in rows.items():
        rule = {"fixed at 0.5": "0.5", "sensitivity at least 0.9": "sensitivity=0.9"}.get(
            names[-1], names[-1].removeprefix("highest ").replace(" ", "_")
        )
        threshold = pick_threshold(*split["val"], rule)
        expected = compute(*split["test"], threshold)
        assert cells["Threshold"].value == threshold
        for title, metric in (("Accuracy", "accuracy"), ("Sensitivity", "recall"), ("F1", "f1")):
            assert cells[title].value == pytest.approx(expected[metric])
    own = next(row["threshold"] for row in results.to_pylist() if row["metric"] == "recall" and row["label"] == "edema")
    assert next(c for n, c in rows.items() if n[-1] == "highest balanced accuracy")["Threshold"].value == own


def test_thresholds_without_predictions_are_refused(tmp_path: Path) -> None:
    results = grid(tmp_path, one={"labels": {"edema": 0.85}})
    next(tmp_path.rglob("predictions.parquet")).unlink()
    with pytest.raises(InputError, match="thresholds are computed from the runs' predictions"):
        build("thresholds", results, Options())
