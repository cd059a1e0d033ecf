"""Test predictions of one run by group of patients or images: sex, age band, view.

Patients have the same code in every group, so that what groups share (a patient X-rayed in two views) is in the
covariance of their metrics.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)
from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from results import dataset_names, levels
from results.collect import predictions_beside
from results.errors import InputError
from results.schema import Row, read_predictions
from results.stats.predictions import ScoreMatrix, score_matrices

ATTRIBUTES = ("sex", "age", "view")
"""What images are grouped by; of predictions since version 3 of the layout."""

AGE_BANDS = (20.0, 40.0, 60.0, 80.0)
"""Years at which age bands begin, as in Seyyed-Kalantari et al. 2021."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grouped:
    """One run's test predictions by group."""

    groups: dict[str, ScoreMatrix]
    """Group -> its images (or studies); patient codes are those of the whole test set."""
    n_patients: int
    """Patients of the test set, the codes' range."""
    unknown: int
    """Images whose group is not known."""


def grouped(row: Row, attribute: str, bands: Sequence[float] = AGE_BANDS) -> Grouped | str:
    """The predictions behind a row by group, or why there are none.

    At the level of studies a study is made of its images in the group (two views of a study are two groups).

    Args:
        row: a result; says run, test set and level.
        attribute: one of `ATTRIBUTES`.
        bands: years, rising, at which age bands begin; below the first is a band, too.
    """
    path = predictions_beside(str(row["source"]))
    if path is None:
        return "predictions not found"
    try:
        table = _test_rows(path, row)
        if table is None:
            return "predictions not found"
        return _split(table, attribute, bands, levels.of(row))
    except InputError:
        return "predictions not readable"


def _test_rows(path: Path, row: Row) -> pa.Table | None:
    table = read_predictions(path)
    table = table.filter(pc.equal(table["split"], "test"))
    known = pc.unique(table["dataset"]).to_pylist()
    name = dataset_names.in_run(str(row["test_dataset"]), row["test_dataset_hash"], known)
    return None if name is None else table.filter(pc.equal(table["dataset"], name))


def _split(table: pa.Table, attribute: str, bands: Sequence[float], level: str) -> Grouped | str:
    values = _bands(table["age"], bands) if attribute == "age" else table[attribute].combine_chunks()
    if values.null_count == len(values):
        return f"the predictions do not say {attribute}"
    everyone = np.array(sorted(pc.unique(table["patient_id"]).to_pylist()), dtype=object)
    keys = pc.count_distinct(table.filter(pc.is_null(values))["key"]).as_py()
    groups = {}
    for name in _ordered(pc.unique(values.drop_null()).to_pylist(), attribute, bands):
        part = table.filter(pc.fill_null(pc.equal(values, name), False))
        matrix = next(iter(score_matrices(part, "test", level).values()))
        held = np.array(sorted(pc.unique(part["patient_id"]).to_pylist()), dtype=object)
        codes = np.searchsorted(everyone, held)[matrix.patients]
        groups[name] = dataclasses.replace(matrix, patients=codes)
    return Grouped(groups=groups, n_patients=len(everyone), unknown=int(keys))


def _bands(ages: pa.ChunkedArray, bands: Sequence[float]) -> pa.Array:
    """The name of each age's band; null where no age is known."""
    years = ages.combine_chunks().cast(pa.float64()).to_numpy(zero_copy_only=False)
    names = np.array(band_names(bands), dtype=object)
    known = np.isfinite(years)
    place = np.searchsorted(np.asarray(bands, float), np.where(known, years, 0.0), side="right")
    return pa.array(names[place], pa.string(), mask=~known)


def band_names(bands: Sequence[float]) -> list[str]:
    """`below 20`, `20 to 39`, ..., `80 and above`, in years."""
    ends = [f"{edge:g}" for edge in bands]
    between = [f"{low:g} to {high - 1:g}" for low, high in zip(bands, bands[1:], strict=False)]
    return [f"below {ends[0]}", *between, f"{ends[-1]} and above"]


def _ordered(names: Sequence[Any], attribute: str, bands: Sequence[float]) -> list[str]:
    order = band_names(bands) if attribute == "age" else sorted(map(str, names))
    return [name for name in order if name in set(names)]
