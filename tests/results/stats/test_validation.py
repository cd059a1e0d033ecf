"""What a run did on its validation images."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from results.collect import collect
from results.schema import read_predictions, write_predictions
from results.stats.validation import validation_scores, validation_value
from tests.results import simulate


def test_predictions_that_were_written_again_are_read_again(tmp_path: Path) -> None:
    run = simulate.finetune(tmp_path, labels={"edema": 0.9}, history=False, intervals=False)
    row = next(row for row in collect(tmp_path)[0].to_pylist() if (row["label"], row["metric"]) == ("edema", "auroc"))
    first = validation_value(row, "auroc")
    table = read_predictions(run.predictions)
    place = table.column_names.index("y_score")
    turned = pc.subtract(pa.scalar(1.0, pa.float32()), table["y_score"])  # type: ignore[attr-defined]
    write_predictions(run.predictions, table.set_column(place, "y_score", turned))
    assert first is not None and validation_value(row, "auroc") == pytest.approx(1 - first)
    run.predictions.unlink()
    assert validation_value(row, "auroc") is None and validation_scores(row) is None
