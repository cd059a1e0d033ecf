"""The cost of a study: every run counted once, and the pretraining behind it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from results.cells.options import Options
from results.collect import collect
from results.tables.registry import build
from tests.results import simulate
from tests.results.grids import lines


def test_cost_adds_pretraining_and_counts_each_run_once(results: pa.Table) -> None:
    rows = lines(build("cost", results, Options()))
    total = next(cells for names, cells in rows.items() if names[0] == "Total")
    assert total["Runs"].text == "28"
    assert total["GPU-hours"].value == pytest.approx(2.0 + 27 * 0.1)


def test_cost_names_the_method_of_a_pretraining_where_it_is_not_simclr_alone(tmp_path: Path) -> None:
    simulate.finetune(tmp_path, history=False)
    simulate.pretrain(tmp_path)
    assert [names[0] for names in build("cost", collect(tmp_path)[0], Options()).row_names][:1] == ["Pretraining"]
    for seed in (0, 1):
        simulate.pretrain(tmp_path, method="vicreg", seed=seed)
    rows = lines(build("cost", collect(tmp_path)[0], Options()))
    runs = {names[0]: cells["Runs"].text for names, cells in rows.items()}
    assert list(runs)[:2] == ["Pretraining, SimCLR", "Pretraining, VICReg"]
    assert (runs["Pretraining, SimCLR"], runs["Pretraining, VICReg"], runs["Total"]) == ("1", "2", "4")


def test_a_filter_of_the_cost_takes_the_pretraining_behind_the_chosen_runs_alone(results: pa.Table) -> None:
    for where, runs, left in (("init=scratch", "9", True), ("init=simclr:nih", "10", False), ("seed=0", "10", False)):
        table = build("cost", results, Options(where=(where,)))
        total = next(cells for names, cells in lines(table).items() if names[0] == "Total")
        assert total["Runs"].text == runs
        assert any("1 pretraining run that no chosen run started from left out" in note for note in table.notes) == left
