"""An ablation of anything, from the spec's variants to the table: batch norm and the threshold among them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cxrdist.finetune import identity
from cxrdist.finetune import trial as finetuning
from cxrdist.sweep.config import SweepConfig
from cxrdist.sweep.grid import expand
from results.cells.options import Options
from results.collect import collect
from results.tables.registry import build
from tests.cxrdist.finetuning import BASE


@pytest.fixture(scope="module")
def ablation(blobs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cells of a spec with variants, each trained a little."""
    out = tmp_path_factory.mktemp("ablation")
    variants = [
        {"name": "no batch norm", "norm": "none"},
        {"name": "threshold 0.9", "threshold": "0.9"},
        {"name": "dense, L2 only", "head.kind": "dense", "head.hidden": 8},
    ]
    shared = {**BASE, "shards": str(blobs), "epochs": 1, "min_steps": 10}
    del shared["threads"]
    for cell in expand(SweepConfig(out=str(out), axes={"seed": [0, 1]}, variant=variants, finetune=shared)):
        finetuning.run_trial(cell.config, identity.make_run(cell.config))
    return out


def test_the_table_names_variants_as_the_spec_does(ablation: Path) -> None:
    table = build("ablation", collect(ablation)[0], Options(metric="balanced_accuracy"))
    names = [row[-1] for row in table.row_names]
    assert names[0] == "full recipe" and sorted(names[1:]) == ["dense, L2 only", "no batch norm", "threshold 0.9"]
    assert all(cells[0] is not None and cells[0].n == 2 for cells in table.cells)
    assert [cells[1].text for cells in table.cells if cells[1] is not None and cells[1].text] == ["reference"]


def test_a_threshold_changes_what_depends_on_it_and_nothing_else(ablation: Path) -> None:
    results = collect(ablation)[0]
    for metric, same in (("brier", True), ("recall", False)):
        table = build("ablation", results, Options(metric=metric))
        values = {names[-1]: cells[0] for names, cells in zip(table.row_names, table.cells, strict=True)}
        recipe, other, norm = (values[name] for name in ("full recipe", "threshold 0.9", "no batch norm"))
        assert recipe is not None and other is not None and norm is not None
        assert (recipe.value == other.value) == same
        assert metric == "recall" or recipe.value != norm.value
