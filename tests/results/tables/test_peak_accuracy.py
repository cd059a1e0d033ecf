"""The best accuracy of a configuration, chosen on validation images."""

from __future__ import annotations

from pathlib import Path

import pyarrow.compute as pc

from results import configs
from results.cells.options import Options
from results.collect import collect, predictions_beside
from results.schema import read_metrics, write_metrics
from results.tables.registry import build
from results.tables.render import render
from tests.results import simulate
from tests.results.grids import grid


def test_peak_accuracy_chooses_on_validation(tmp_path: Path) -> None:
    results = grid(tmp_path, one={"label_fraction": 0.1, "labels": {"edema": 0.95}})
    results = grid(tmp_path, one={"label_fraction": 1.0, "labels": {"edema": 0.6}})
    table = build("peak-accuracy", results, Options())
    assert any("chosen on validation images" in note for note in table.notes)
    best = results.filter(
        (pc.field("label") == "edema") & (pc.field("metric") == "accuracy") & (pc.field("label_fraction") == 0.1)
    )
    assert table.cells[0][0].value == best["value"][0].as_py()  # type: ignore[union-attr]
    for source in set(results["source"].to_pylist()):
        path = predictions_beside(source)
        assert path is not None
        path.rename(path.with_name("gone"))
    assert any("chosen on the test images" in note for note in build("peak-accuracy", results, Options()).notes)


def test_peak_accuracy_chooses_among_all_settings_of_the_configuration(tmp_path: Path) -> None:
    for rate, auroc in ((0.1, 0.6), (0.01, 0.95), (0.001, 0.75)):
        for seed in (0, 1):
            simulate.finetune(
                tmp_path,
                seed=seed,
                labels={"edema": auroc},
                config={"optim": {"lr": rate}},
                intervals=False,
                history=False,
            )
    table = build("peak-accuracy", collect(tmp_path)[0], Options(test=False))
    cell = table.cells[0][0]
    assert cell is not None and cell.n == 2
    assert {configs.parsed(row["config"])["optim.lr"] for row in cell.rows} == {0.01}
    assert table.notes[0] == "The setting (optim.lr) of each cell was chosen on validation images, among 3."
    assert table.notes[1] == "Chosen (cells): optim.lr 0.01 (1)."
    for source in set(collect(tmp_path)[0]["source"].to_pylist()):
        rows = read_metrics(source).to_pylist()
        write_metrics(source, [row | {"value": None} for row in rows])
    undefined = build("peak-accuracy", collect(tmp_path)[0], Options(test=False))
    assert undefined.cells[0][0] is not None and "undefined" in render(undefined, "markdown")
    assert not any("no finished run" in note for note in undefined.notes)
