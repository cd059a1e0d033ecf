"""The ablation table: differences to the full recipe."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from results.cells.options import Options
from results.collect import collect
from results.errors import InputError
from results.tables.registry import build
from tests.results import simulate
from tests.results.grids import lines


def test_ablation_gives_differences_to_the_full_recipe_with_corrected_p(tmp_path: Path) -> None:
    strong, weak = {"edema": 0.95}, {"edema": 0.6}
    for seed in range(3):
        simulate.finetune(tmp_path, labels=strong, seed=seed)
        simulate.finetune(tmp_path, labels=weak, seed=seed, variant="augment.blur=false")
        simulate.finetune(tmp_path, labels=strong, seed=seed, variant="head.width=64")
    table = build("ablation", collect(tmp_path)[0], Options())
    rows = lines(table)
    assert [names[0] for names in table.row_names] == ["full recipe", "augment.blur=false", "head.width=64"]
    blur = rows[("augment.blur=false",)]
    base = rows[("full recipe",)]["AUROC"].value
    assert blur["Difference"].value == pytest.approx(blur["AUROC"].value - base)
    assert blur["Difference"].best and blur["p"].text == "< 0.001"
    assert not rows[("head.width=64",)]["Difference"].best
    assert "paired t test by patient and seed" in table.notes[0]


def test_ablation_without_variants_says_what_to_do(results: pa.Table) -> None:
    with pytest.raises(InputError, match="name another axis with --rows"):
        build("ablation", results, Options())
    table = build("ablation", results, Options(rows=("init",), reference="scratch", test=False))
    assert table.row_names[0][-1] == "Scratch"
