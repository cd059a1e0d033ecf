"""Sets in their published layouts, and their conversion with the settings of the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from jobs.cli import parse
from tests.shards.convert import layouts
from tests.shards.convert.conftest import make

WRITERS: dict[str, Callable[[Path], None]] = {
    "mimic": layouts.write_mimic,
    "padchest": layouts.write_padchest,
    "vindr": layouts.write_vindr,
    "rsna": layouts.write_rsna,
    "brax": layouts.write_brax,
    "chexpert_plus": layouts.write_chexpert_plus,
    "siim": layouts.write_siim,
}


def config(name: str, root: Path, **changes: Any) -> Any:
    words = [
        "--src",
        str(root),
        "--out",
        str(changes.pop("out", root.parent / "out")),
        "--size",
        "32",
        "--workers",
        "1",
    ]
    for key, value in changes.items():
        words += [f"--{key}", str(value)]
    return parse("shard", [name, *words])


def converted(name: str, root: Path, **changes: Any) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    WRITERS[name](root)
    return make(config(name, root, **changes))
