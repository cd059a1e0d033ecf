"""The trials of a search, ranked by validation."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from results.cells.options import Options
from results.collect import collect
from results.schema import PREDICTIONS, read_metrics, read_predictions, write_metrics, write_predictions
from results.tables.registry import build
from tests.results import simulate


def test_search_ranks_what_is_undefined_last_and_each_test_set_alone(tmp_path: Path) -> None:
    for rate, auroc in ((0.1, 0.6), (0.01, 0.95), (0.001, 0.75)):
        simulate.finetune(
            tmp_path,
            labels={"edema": auroc},
            config={"optim": {"rate": rate}},
            train_dataset="nih",
            test_datasets=("nih", "chexpert"),
            intervals=False,
        )
    lost = simulate.finetune(
        tmp_path, labels={"edema": 0.9}, config={"optim": {"rate": 7.0}}, train_dataset="nih", intervals=False
    )
    rows = read_metrics(lost.metrics).to_pylist()
    write_metrics(lost.metrics, [row | {"value": None} for row in rows])
    predictions = read_predictions(lost.predictions).to_pylist()
    truth = [1 if row["split"] == "val" else row["y_true"] for row in predictions]  # no negatives on validation
    write_predictions(
        lost.predictions,
        pa.Table.from_pylist(
            [row | {"y_true": y} for row, y in zip(predictions, truth, strict=True)], schema=PREDICTIONS
        ),
    )
    table = build("search", collect(tmp_path)[0], Options(limit=10))
    held = [(names[0], names[1], names[-1]) for names in table.row_names]
    assert [one for one in held if one[1] == "chexpert"] == [
        ("1", "chexpert", "0.01"),
        ("2", "chexpert", "0.001"),
        ("3", "chexpert", "0.1"),
    ]
    assert [one[2] for one in held if one[1] == "nih"] == ["0.01", "0.001", "0.1", "7"]
    assert held[-1][0] == "\u2013", "what has no value has no rank"
    assert "Ordered by validation, within each test set. 1 trial without a value there" in table.notes[0]


def test_search_orders_trials_by_validation_and_names_settings(tmp_path: Path) -> None:
    for rate, auroc in ((0.1, 0.6), (0.01, 0.95), (0.001, 0.75)):
        simulate.finetune(tmp_path, labels={"edema": auroc}, config={"optim": {"rate": rate}})
    table = build("search", collect(tmp_path)[0], Options(limit=2))
    assert table.row_titles == ("Rank", "optim.rate")
    assert [names[1] for names in table.row_names] == ["0.01", "0.001"]
    assert "The first 2 of 3 trials." in table.notes
