"""The table of models: what each missed, and the pretraining method as an axis and a filter."""

from __future__ import annotations

from pathlib import Path

import pyarrow.compute as pc

from results.cells.options import Options
from results.tables.registry import build
from tests.results.grids import grid, lines


def test_models_table_counts_what_was_missed(tmp_path: Path) -> None:
    results = grid(tmp_path, one={"labels": {"pneumonia": 0.9}})
    table = build("models", results, Options())
    (cells,) = lines(table).values()
    misses = results.filter((pc.field("label") == "pneumonia") & (pc.field("metric") == "fn"))
    assert cells["False negatives"].text == f"{misses['value'][0].as_py():.0f}/{misses['n_pos'][0].as_py()}"
    assert cells["Parameters"].text == "11.18 M"
    assert {"Balanced accuracy", "Sensitivity", "Specificity"} <= set(table.column_names)


def test_the_method_of_an_initialisation_can_be_an_axis_and_a_filter(tmp_path: Path) -> None:
    rows = grid(
        tmp_path,
        **{
            "scratch": {},
            "simclr:nih": {"method": "simclr", "pretrain_dataset": "nih"},
            "vicreg:nih": {"method": "vicreg", "pretrain_dataset": "nih"},
        },
    )
    table = build("models", rows, Options(rows=("method",), test=False))
    assert table.row_titles == ("Pretraining method",)
    assert sorted(names[0] for names in table.row_names) == ["SimCLR", "VICReg", "none"]
    plain = build("label-efficiency", rows, Options(test=False))
    assert "Pretraining method" not in plain.row_titles, "the initialisation's name says it"
    chosen = build("models", rows, Options(where=("method=vicreg",), test=False))
    assert "vicreg:nih initialisation" in chosen.caption
