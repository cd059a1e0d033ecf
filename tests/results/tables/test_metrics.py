"""The table of all metrics of a run, with its counts."""

from __future__ import annotations

from pathlib import Path

import pyarrow.compute as pc
import pytest

from results.cells.options import Options
from results.tables.registry import build
from tests.results.grids import THRICE, grid, lines


def test_metrics_table_holds_the_metrics_and_counts_of_a_run(tmp_path: Path) -> None:
    results = grid(tmp_path, one={"labels": {"pneumonia": 0.9}})
    table = build("metrics", results, Options())
    (cells,) = lines(table).values()
    held = {row["metric"]: row for row in results.to_pylist() if row["label"] == "pneumonia"}
    titles = {"Accuracy": "accuracy", "Precision": "precision", "Sensitivity": "recall", "Specificity": "specificity"}
    titles |= {"F1": "f1", "AUROC": "auroc", "AUPRC": "auprc"}
    assert set(table.column_names) == {*titles, "TP", "FP", "TN", "FN"}
    for title, metric in titles.items():
        assert cells[title].value == pytest.approx(held[metric]["value"]) and cells[title].low is not None
    for name in ("tp", "fp", "tn", "fn"):
        assert cells[name.upper()].text == f"{held[name]['value']:.0f}"


def test_metrics_table_has_a_row_for_each_label_and_counts_are_means_over_seeds(tmp_path: Path) -> None:
    results = grid(tmp_path, one={"labels": {"edema": 0.9, "mass": 0.7}, **THRICE})
    rows = lines(build("metrics", results, Options()))
    counts = results.filter((pc.field("label") == "edema") & (pc.field("metric") == "tp"))["value"].to_pylist()
    edema = next(cells for names, cells in rows.items() if "Edema" in names)
    assert len(counts) == 3 and edema["TP"].value == pytest.approx(sum(counts) / 3)
    assert len(rows) == 3, "two labels and their mean"


def test_metrics_table_of_studies_says_that_its_counts_are_of_studies(tmp_path: Path) -> None:
    results = grid(tmp_path, one={"labels": {"edema": 0.9}, "levels": ("study",)})
    table = build("metrics", results, Options())
    cells = lines(table).popitem()[1]
    row = next(row for row in results.to_pylist() if row["label"] == "edema" and row["metric"] == "tp")
    assert row["level"] == "study" and cells["TP"].value == row["value"]
    assert "TP, FP, TN, FN: studies at the threshold (means over seeds)." in table.notes
