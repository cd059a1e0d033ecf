"""The order of rows and columns, which the order of the results does not change."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from results.cells.options import Options
from results.tables.registry import build
from results.tables.render import render


def test_rows_and_columns_stand_in_a_readers_order(results: pa.Table) -> None:
    table = build("label-efficiency", results, Options(test=False))
    assert table.column_names == ("Scratch", "ImageNet", "simclr:nih")
    assert [names[0] for names in table.row_names] == ["1 %", "10 %", "100 %"]


def test_results_of_a_table_do_not_depend_on_the_order_of_rows(results: pa.Table) -> None:
    mixed = results.take(np.random.default_rng(0).permutation(len(results)))
    options = Options()
    assert render(build("label-efficiency", mixed, options), "csv") == render(
        build("label-efficiency", results, options), "csv"
    )
