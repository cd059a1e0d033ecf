"""The influences behind result rows, read from the predictions beside them and kept, so that each run is read once."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from results import dataset_names, levels
from results.collect import predictions_beside
from results.cores import cores
from results.errors import InputError
from results.schema import MACRO, Row, read_metrics
from results.stats import influence, rescore
from results.stats.influence import MIN_CLASS_PATIENTS, MIN_PATIENTS, Influence
from results.stats.predictions import ScoreMatrix, load_scores
from results.stats.tested import Tested, of_matrix

LABELS = "labels"
"""Key of a macro row: the labels that its value averages, sorted; absent where they are not known."""

TOO_FEW = f"fewer than {MIN_CLASS_PATIENTS} patients with or without the finding, or than {MIN_PATIENTS} in all"
"""Why a value has no interval and is in no test."""

HELD_ELEMENTS = 100_000_000
"""Influences kept (float32); the run read longest ago goes first."""

PROGRESS_AFTER = 2.0
"""Seconds of reading after which a terminal shows how far it is."""


_held: dict[tuple[Any, ...], Tested | str] = {}
_guard = threading.Lock()


def prepare(rows: Iterable[Row]) -> None:
    """Read the predictions behind rows, several runs at a time, so that `tested` and `estimate` find them."""
    wanted = {_key(row): row for row in rows if row["metric"] in influence.INTERVAL_METRICS}
    missing = [row for key, row in wanted.items() if key not in _held]
    if len(missing) > 1:
        with ThreadPoolExecutor(max_workers=cores()) as pool:  # numpy and pyarrow release the interpreter's lock
            found = pool.map(tested, missing)
            for _ in tqdm(
                found, "predictions", len(missing), unit="run", delay=PROGRESS_AFTER, leave=False, disable=None
            ):
                pass


def tested(row: Row) -> Tested | str:
    """The row's metric label by label, or why its predictions cannot be used."""
    key = _key(row)
    with _guard:
        found = _held.get(key)
    if found is None:
        found = _read(row)
        with _guard:
            _held[key] = found
            while len(_held) > 1 and sum(map(_size, _held.values())) > HELD_ELEMENTS:
                del _held[next(iter(_held))]
    return found


def _key(row: Row) -> tuple[Any, ...]:
    """The run, its test set, the level and the metric, with the times at which its files were written."""
    source = str(row["source"])
    path = predictions_beside(source)
    written = tuple(_written(one) for one in (path, Path(source)))
    return (source, written, str(row["test_dataset"]), row["test_dataset_hash"], levels.of(row), str(row["metric"]))


def _written(path: Path | None) -> int:
    try:
        return path.stat().st_mtime_ns if path is not None else 0
    except OSError:
        return 0


def _size(held: Tested | str) -> int:
    if isinstance(held, str):
        return 0
    return sum(len(one.patients) for one in held.single.values() if one is not None)


def _read(row: Row) -> Tested | str:
    place = (str(row["source"]), str(row["test_dataset"]), row["test_dataset_hash"], levels.of(row))
    matrix = load_scores(*place)
    if not isinstance(matrix, ScoreMatrix):
        return matrix
    thresholds = thresholds_of(*place)
    return of_matrix(matrix, str(row["metric"]), thresholds)


def estimate(row: Row, found: Tested | str | None = None) -> Influence | str:
    """The row's value with its influences, or why there is no interval."""
    if row["metric"] not in influence.INTERVAL_METRICS:
        return f"no interval for {row['metric']}"
    found = tested(row) if found is None else found
    if isinstance(found, str):
        return found
    labels = labels_of(row, found)
    parts = [found.single.get(label) for label in labels]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts) or not known:
        return "undefined values" if set(labels) <= set(found.single) else "predictions not found"
    if set(labels) & found.few:
        return TOO_FEW
    return influence.mean(known)


def labels_of(row: Row, found: Tested) -> tuple[str, ...]:
    """The labels that a row's value is of, or averages."""
    if row["label"] != MACRO:
        return (row["label"],)
    if LABELS in row:
        return tuple(row[LABELS])
    return tuple(label for label, one in found.single.items() if one is not None)


def images_of(row: Row, found: Tested) -> tuple[bytes | None, ...]:
    """What a row was tested on; equal for two rows exactly when their images, patients and truths are."""
    return tuple(found.images.get(label) for label in labels_of(row, found))


def thresholds_of(
    source: str, dataset: str, content: str | None = None, level: str = levels.IMAGE
) -> dict[str, float | None]:
    """The thresholds by label that a run's metrics on a test set were computed with; empty when its file is gone.

    Args:
        source: the metrics file, as a collected table names it.
        dataset: the test set's name there.
        content: its hash there, `test_dataset_hash`.
        level: of the scores that the thresholds are for.
    """
    try:
        return _thresholds(source, dataset, content, level, Path(source).stat().st_mtime_ns)
    except (InputError, OSError):
        return {}


@functools.lru_cache(maxsize=256)
def _thresholds(source: str, dataset: str, content: str | None, level: str, _written: int) -> dict[str, float | None]:
    rows = read_metrics(Path(source)).select(["test_dataset", "label", "metric", "threshold", "level"]).to_pylist()
    name = dataset_names.in_run(dataset, content, {row["test_dataset"] for row in rows})
    rows = [row for row in rows if row["test_dataset"] == name]
    held = [row for row in rows if levels.of(row) == level]
    if rows and not held:  # the numbers are not the run's own, they were made from its predictions
        held = rescore.made(source, dataset, content, level)
    return {row["label"]: row["threshold"] for row in held if row["metric"] == "accuracy" and row["label"] != MACRO}


def interval(rows: Sequence[Row]) -> tuple[float | None, float | None] | str:
    """95 % interval of the mean of rows that differ in their seed, or why there is none."""
    from results.stats import uncertainty

    found = [tested(row) for row in rows]
    parts = [estimate(row, one) for row, one in zip(rows, found, strict=True)]
    reasons = [part for part in parts if isinstance(part, str)]
    if reasons:
        return TOO_FEW if TOO_FEW in reasons else reasons[0]
    if len({images_of(row, one) for row, one in zip(rows, found, strict=True) if isinstance(one, Tested)}) > 1:
        return "tested on different images"
    return uncertainty.interval([part for part in parts if isinstance(part, Influence)])
