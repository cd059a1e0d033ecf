"""What is in a cell: means, their intervals, and the marks of what has none."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from results.cells.options import Options
from results.collect import predictions_beside
from results.tables.registry import build
from results.tables.render import render
from tests.results.grids import THRICE, grid, lines


def test_cell_is_the_mean_over_seeds_with_an_interval_over_patients_and_seeds(results: pa.Table) -> None:
    table = build("label-efficiency", results, Options(test=False))
    cell = lines(table)["10 %", "100"]["ImageNet"]
    chosen = results.filter(
        (pc.field("init") == "imagenet")
        & (pc.field("label_fraction") == 0.1)
        & (pc.field("label") == "macro")
        & (pc.field("metric") == "auroc")
    )
    values = chosen["value"].to_numpy()
    assert cell.n == 3 and cell.interval == "both" and cell.value == pytest.approx(values.mean())
    one = chosen.to_pylist()[0]
    assert cell.high - cell.low > 0.6 * (one["ci_high"] - one["ci_low"]), "patients stay in it, however alike the seeds"
    assert "Mean over seeds (n = 3) with its 95 % interval, which covers both test patients and seeds" in table.caption
    assert "split official, label policy ones/zeros" in table.caption


def test_one_seed_shows_the_patient_interval_and_says_so(tmp_path: Path) -> None:
    results = grid(tmp_path, one={}, two={})
    table = build("label-efficiency", results, Options(test=False))
    assert "One seed; 95 % interval over test patients, for this trained model" in table.caption
    (cells,) = lines(table).values()
    chosen = results.filter((pc.field("label") == "macro") & (pc.field("metric") == "auroc"))
    assert cells["one"].interval == "patients"
    assert sorted(cell.low for cell in cells.values()) == pytest.approx(sorted(chosen["ci_low"].to_pylist()))


def test_few_patients_have_no_interval_no_test_and_a_mark(tmp_path: Path) -> None:
    arms = {"winner": {"labels": {"edema": 0.99}}, "loser": {"labels": {"edema": 0.5}}}
    results = grid(tmp_path, **{init: THRICE | held | {"n": {"val": 120, "test": 9}} for init, held in arms.items()})
    table = build("label-efficiency", results, Options())
    for cell in lines(table).popitem()[1].values():
        assert cell.few and cell.low is None and not cell.best
    assert any(
        note.startswith("\u2021: no interval and no test (2 cells): fewer than 3 patients") for note in table.notes
    )
    assert render(table, "markdown").count("\u2021 |") == 2 and r"\textsuperscript{\ddag}" in render(table, "latex")
    assert "too few patients" in render(table, "csv")
    rows = [row for row in results.to_pylist() if row["metric"] == "auroc"]
    assert {row["ci_low"] for row in rows} == {None}, "nor does the run write one"


def test_two_seeds_have_the_interval_of_both_variances(tmp_path: Path) -> None:
    table = build("label-efficiency", grid(tmp_path, two={"seeds": (0, 1)}), Options(test=False))
    cell = next(cell for line in table.cells for cell in line if cell is not None)
    assert cell.n == 2 and cell.interval == "both"
    assert "Mean over seeds (n = 2) with its 95 % interval, which covers both" in table.caption


def test_without_predictions_stored_intervals_are_widened_by_the_seeds(tmp_path: Path) -> None:
    results = grid(tmp_path, one=THRICE)
    with_predictions = build("label-efficiency", results, Options(test=False)).cells[0][0]
    for source in set(results["source"].to_pylist()):
        path = predictions_beside(source)
        assert path is not None
        path.unlink()
    without = build("label-efficiency", results, Options(test=False)).cells[0][0]
    assert with_predictions is not None and without is not None and without.interval == "both"
    assert without.low is not None and without.high is not None
    assert with_predictions.low is not None and with_predictions.high is not None
    assert without.high - without.low >= 0.95 * (with_predictions.high - with_predictions.low)


def test_cells_with_one_seed_among_several_are_marked(tmp_path: Path) -> None:
    table = build("label-efficiency", grid(tmp_path, many={"seeds": (0, 1, 2)}, once={}), Options(test=False))
    text = render(table, "markdown")
    assert text.count("]\u2020") == 1 and "\u2020 one seed, 95 % interval over test patients" in table.caption


def test_missing_cells_are_shown_and_counted(tmp_path: Path) -> None:
    grid(tmp_path, one={"label_fraction": 0.1}, two={"label_fraction": 0.1})
    table = build("label-efficiency", grid(tmp_path, one={"label_fraction": 1.0}), Options())
    assert lines(table)["100 %", "1000"]["two"] is None
    assert "\u2013: no finished run (1 cell)." in table.notes
    assert "| \u2013 |" in render(table, "markdown") and " -- " in render(table, "latex")
    assert list(csv.DictReader(io.StringIO(render(table, "csv"))))[-1]["text"] == "missing"


def test_undefined_values_are_named_and_left_out_of_the_mean(tmp_path: Path) -> None:
    results = grid(tmp_path, one={"seeds": (0, 1)}, two={})
    values = results["value"].to_pylist()
    for place, row in enumerate(results.select(["init", "seed", "label", "metric"]).to_pylist()):
        if row["metric"] == "auroc" and row["label"] == "macro" and (row["init"] == "two" or row["seed"] == 1):
            values[place] = None
    results = results.set_column(results.column_names.index("value"), "value", pa.array(values, pa.float64()))
    table = build("label-efficiency", results, Options())
    (cells,) = lines(table).values()
    assert cells["two"].value is None and cells["one"].n == 1
    assert "undefined" in render(table, "latex")
    assert "1 cell averages only the seeds for which the value is defined." in table.notes
