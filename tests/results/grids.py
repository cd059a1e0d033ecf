"""Small grids of simulated runs and the cells of their tables by name; shared by tests of tables and cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from results.collect import collect
from results.tables.render import Table
from tests.results import simulate


def lines(table: Table) -> dict[tuple[str, ...], dict[str, Any]]:
    """Row names -> column name -> cell."""
    return {
        names: dict(zip(table.column_names, cells, strict=True))
        for names, cells in zip(table.row_names, table.cells, strict=True)
    }


THRICE = {"seeds": (0, 1, 2)}
"""As arguments of `grid`: three seeds, so that runs are tested."""


def grid(folder: Path, **inits: dict) -> pa.Table:
    """Runs by name, one seed unless the arguments say otherwise, collected."""
    for init, arguments in inits.items():
        more = {name: value for name, value in arguments.items() if name != "seeds"}
        for seed in arguments.get("seeds", (0,)):
            simulate.finetune(folder, init=init, seed=seed, history=False, **more)
    return collect(folder)[0]
