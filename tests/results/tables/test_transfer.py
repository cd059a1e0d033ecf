"""The transfer table compares training sets down a test set, each label policy by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from results.cells.options import Options
from results.collect import collect
from results.errors import InputError
from results.tables.registry import build
from tests.results import simulate


def test_transfer_compares_down_a_test_set(tmp_path: Path) -> None:
    for train in ("nih", "chexpert"):
        simulate.finetune(tmp_path, train_dataset=train, test_datasets=("nih", "chexpert"), init="simclr:nih")
    table = build("transfer", collect(tmp_path)[0], Options())
    assert table.column_names == ("chexpert", "nih") and table.row_titles == ("Training set",)
    assert all(cell is not None for line in table.cells for cell in line)
    assert "Test sets: chexpert" in table.caption


def test_transfer_shows_two_label_policies_in_rows_of_their_own(tmp_path: Path) -> None:
    """As jobs/specs/transfer_nih_chexpert.toml makes them; the policies leave other test images out."""
    for policy, text, n in (("u-ones", "ones/zeros", 200), ("u-ignore", "ignore/zeros", 180)):
        for train in ("nih", "chexpert"):
            simulate.finetune(
                tmp_path,
                train_dataset=train,
                test_datasets=("nih", "chexpert"),
                label_policy=text,
                variant=f"policy={policy}",
                config={"uncertain": policy.removeprefix("u-")},
                n={"val": 120, "test": n},
                intervals=False,
                history=False,
            )
    results = collect(tmp_path)[0]
    table = build("transfer", results, Options())
    assert table.row_titles == ("Label policy", "Training set") and len(table.row_names) == 4
    assert all(cell is not None and cell.n == 1 for line in table.cells for cell in line)
    assert "label policy ignore/zeros" in table.caption and "label policy ones/zeros" in table.caption
    with pytest.raises(InputError, match="mix several label policies"):
        build("label-efficiency", results, Options())
