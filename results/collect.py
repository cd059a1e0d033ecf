"""Unite the metrics of any number of runs in one table, whatever state their folders are in."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)
from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from results import configs, dataset_names, parquet
from results.cores import cores
from results.errors import InputError
from results.metric_names import METRICS as SHARES
from results.run import RUN_FOLDERS, Run
from results.schema import METRICS, VERSION, read_any

if TYPE_CHECKING:
    import pandas

COLLECTED = pa.schema(
    [*METRICS, pa.field("source", pa.string())],
    metadata={b"cxrdist.schema": b"collected", b"cxrdist.schema_version": str(VERSION).encode()},
)
"""METRICS and `source`: the absolute path of the metrics file that a row came from, beside its predictions."""

IDENTITY = ("signature", "job", "test_dataset", "split_scheme", "label_policy", "level", "label", "metric")
"""Rows that agree in these are one number, measured again."""

COST_METRIC = "cost"
"""The metric name of the one row that a pretraining run contributes: what it took."""

_FOLDER_KEY = b"cxrdist.folder"


def collect(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str] | None = None,
    *,
    unfinished: bool = False,
) -> tuple[pa.Table, list[str]]:
    """Find runs below folders, read their metrics, keep one row per number.

    Folders are searched for runs (they hold run.json); Parquet files are read when named themselves. What cannot be
    used - runs not done, damaged or foreign files - is named in a warning and left out. Two runs of one signature are
    one; the row made last stays. Shard sets of one name and different content get names of their own
    (`dataset_names`).

    Args:
        paths: run folders, folders of runs at any depth, metrics files, files from an earlier `collect`.
        out: where to write the table; None writes nothing.
        unfinished: whether runs without done.json count if they already have metrics.

    Returns:
        A table of COLLECTED, ordered as found, and the warnings.

    Raises:
        InputError: a path does not exist, no usable result was found, or `out` cannot be written.
    """
    paths = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if not all(str(path).strip() for path in paths):
        raise InputError(
            "one of the paths is empty ('', a variable that is not set?); name files or folders, . for here"
        )
    warnings: list[str] = []
    found = [item for path in paths for item in _find(Path(path), unfinished, warnings)]
    with ThreadPoolExecutor(max_workers=min(8, cores() + 1)) as pool:
        parts = list(pool.map(_read, found))
    tables = []
    for part in parts:
        if isinstance(part, str):
            warnings.append(part)
        else:
            tables.append(part)
    if not tables:
        reason = f"; {warnings[0]}" if warnings else "; name folders that hold finished runs"
        more = f" (and {len(warnings) - 1} more)" if len(warnings) > 1 else ""
        raise InputError(f"no results found in {', '.join(map(str, paths))}{reason}{more}")
    table = dataset_names.distinct_names(pa.concat_tables(tables).combine_chunks())
    table = _one_row_per_number(_without_nan(table, warnings), warnings)
    if out is not None:
        write_collected(out, table)
    return table, warnings


def load(path: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> pandas.DataFrame:
    """Results as a pandas DataFrame, one row per number, with the columns of `COLLECTED` (docs/results.md).

    Args:
        path: a collected file, a metrics file, a run, a folder of runs, or several of them.

    Raises:
        InputError: as `collect`.
    """
    return collect(path)[0].to_pandas()


def write_collected(path: str | os.PathLike[str], table: pa.Table) -> None:
    """Write a collected table in one piece; it remembers the folder it was written to, so that both may move."""
    folder = str(Path(path).resolve().parent)
    table = table.replace_schema_metadata({**(COLLECTED.metadata or {}), _FOLDER_KEY: folder.encode()})
    parquet.write(Path(path), table)


def _find(path: Path, unfinished: bool, warnings: list[str]) -> Iterator[Path | Run]:
    """Metrics files and pretraining runs below `path`."""
    if path.is_file():
        yield path
    elif path.is_dir():
        yield from _walk(str(path), unfinished, warnings)
    else:
        raise InputError(f"{path}: no such file or folder")


def _walk(top: str, unfinished: bool, warnings: list[str]) -> Iterator[Path | Run]:
    try:
        entries = sorted(os.scandir(top), key=lambda entry: entry.name)
    except OSError as error:
        warnings.append(f"{top}: cannot be listed ({error.strerror}), skipped")
        return
    names = {entry.name for entry in entries}
    if "run.json" in names:
        yield from _of_run(Run(top), names, unfinished, warnings)
        entries = [entry for entry in entries if entry.name not in RUN_FOLDERS]  # a sweep holds runs of its own
    elif Path(top).name == "results" and "metrics.parquet" in names:
        warnings.append(
            f"{top}: metrics without a run (no run.json beside the folder), skipped; name the file to use it"
        )
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
            yield from _walk(entry.path, unfinished, warnings)


def _of_run(run: Run, names: set[str], unfinished: bool, warnings: list[str]) -> Iterator[Path | Run]:
    if "done.json" not in names and not unfinished:
        if _job(run) in RUNNING_JOBS:
            warnings.append(f"{run.path}: not done yet, skipped")
        return
    files = sorted(run.results.glob("metrics*.parquet")) if "results" in names else []
    yield from files
    if not files:
        job = _job(run)
        if job == "pretrain" and run.is_done:
            yield run
        elif job in RUNNING_JOBS:
            what = f"{job} run without results/metrics.parquet" if job else "run.json is damaged"
            warnings.append(f"{run.path}: {what}, skipped")


def _job(run: Run) -> str | None:
    """What ran; None when run.json cannot be read."""
    try:
        return run.read_info().get("job")
    except InputError:
        return None


RUNNING_JOBS = ("pretrain", "finetune", None)
"""Jobs whose runs are expected to give rows; a sweep's or a submission's own folder is not."""


def _read(item: Path | Run) -> pa.Table | str:
    """The rows of one file or pretraining run, or why there are none."""
    try:
        if isinstance(item, Run):
            return _cost_row(item)
        table = read_any(item, METRICS, COLLECTED)
        if not len(table):
            return f"{item}: holds no rows, skipped; evaluate or train that run again"
        if odd := _outside(table):
            return f"{item}: holds {odd}, skipped; evaluate or train that run again"
        if "source" in table.column_names:
            return _with_configs(_at_home(table, item))
        return _with_configs(_with_source(table, str(item.resolve())))
    except (InputError, KeyError, TypeError, ValueError) as error:
        return f"{error}, skipped"


def _outside(table: pa.Table) -> str | None:
    """A value that its metric cannot have, in words, or None."""
    ends = pc.min_max(table["value"]).as_py()
    if ends["min"] is None or 0.0 <= ends["min"] <= ends["max"] <= 1.0:
        return None
    beyond = pc.or_(pc.less(table["value"], 0.0), pc.greater(table["value"], 1.0))
    wrong = table.filter(pc.fill_null(pc.and_(beyond, pc.is_in(table["metric"], pa.array(SHARES))), False))
    if not len(wrong):
        return None
    row = wrong.slice(0, 1).to_pylist()[0]
    return f"{len(wrong)} values outside [0, 1], first {row['metric']} {row['value']:g} of {row['label']}"


def _with_source(table: pa.Table, source: str) -> pa.Table:
    return table.append_column("source", pa.repeat(pa.scalar(source), len(table))).replace_schema_metadata(
        COLLECTED.metadata
    )


def _at_home(table: pa.Table, path: Path) -> pa.Table:
    """A collected table whose sources are found again when file and runs moved together."""
    metadata = table.schema.metadata or {}
    old, new = metadata.get(_FOLDER_KEY, b"").decode(), str(path.resolve().parent)
    if old and old != new:
        sources = [_moved(source, old, new) for source in table["source"].to_pylist()]
        table = table.set_column(table.column_names.index("source"), "source", pa.array(sources, pa.string()))
    return table.replace_schema_metadata(COLLECTED.metadata)


def _with_configs(table: pa.Table) -> pa.Table:
    """The table with configurations that older results do not hold, as far as their runs are still there."""
    if not table[configs.COLUMN].null_count:
        return table
    lacking = pc.is_null(table[configs.COLUMN])
    sources = pc.unique(table["source"].filter(lacking)).to_pylist()
    found = {source: text for source in sources if (text := configs.beside(Path(source))) is not None}
    if not found:
        return table
    place = pc.index_in(table["source"], pa.array(list(found), pa.string()))
    texts = pa.array(list(found.values()), pa.string()).take(place.combine_chunks())
    held = pc.if_else(lacking, texts, table[configs.COLUMN].cast(pa.string()))
    field = table.schema.field(configs.COLUMN)
    return table.set_column(table.column_names.index(configs.COLUMN), field, held.cast(field.type))


def _moved(source: str, old: str, new: str) -> str:
    """Where a source lies after the collected file moved, if the runs moved with it."""
    if os.path.exists(source):
        return source
    candidate = os.path.normpath(os.path.join(new, os.path.relpath(source, old)))
    return candidate if os.path.exists(candidate) else source


def _cost_row(run: Run) -> pa.Table:
    """What a pretraining run took, as a row without a value, so that tables of cost can add it."""
    info, done, config = run.read_info(), run.read_done(), run.read_config()
    row = {
        "run": str(run.path),
        "signature": info.get("signature"),
        "job": "pretrain",
        "arch": config.get("arch"),
        "init": config.get("init"),
        "method": config.get("method") or "simclr",  # runs from before there was a choice do not say
        "pretrain_dataset": done.get("dataset"),
        "pretrain_dataset_hash": done.get("dataset_hash"),
        "seed": config.get("seed"),
        "metric": COST_METRIC,
        "gpu_seconds": done.get("gpu_seconds"),
        "wall_seconds": done.get("wall_seconds"),
        "git_commit": info.get("git_commit"),
        "n_parameters": done.get("n_parameters"),
        "source": str(run.info.resolve()),
        "config": configs.of_run(run),
    }
    return pa.Table.from_pylist([row], schema=COLLECTED)


def _without_nan(table: pa.Table, warnings: list[str]) -> pa.Table:
    """NaN becomes null: a number that is not one must not enter a mean."""
    for name in ("value", "ci_low", "ci_high"):
        bad = pc.fill_null(pc.invert(pc.is_finite(table[name])), False)
        if count := int(pc.sum(bad).as_py() or 0):
            runs = pc.unique(table["run"].filter(bad)).to_pylist()
            warnings.append(f"{count} values of {name} are NaN or infinite and count as undefined (run {runs[0]} ...)")
            column = pc.if_else(bad, pa.scalar(None, pa.float64()), table[name])
            table = table.set_column(table.column_names.index(name), table.schema.field(name), column)
    return table


def _one_row_per_number(table: pa.Table, warnings: list[str]) -> pa.Table:
    codes = np.zeros(len(table), np.int64)
    for name in IDENTITY:
        column = pc.coalesce(table["signature"], table["run"]) if name == "signature" else table[name]
        code = _integer_codes(column)
        codes = np.unique(codes * (int(code.max()) + 1) + code, return_inverse=True)[1]
    if len(np.unique(codes)) == len(codes):
        return table
    moment = table["created_at"].fill_null(0).cast(pa.int64()).to_numpy()
    order = np.lexsort((np.arange(len(codes)), moment, codes))
    last = np.append(np.diff(codes[order]) != 0, True)
    kept = np.sort(order[last])
    _warn_of_differences(table, codes, order, last, warnings)
    return table.take(pa.array(kept))


def _warn_of_differences(
    table: pa.Table, codes: np.ndarray, order: np.ndarray, last: np.ndarray, warnings: list[str]
) -> None:
    value = table["value"].to_numpy()
    stays = np.empty(int(codes.max()) + 1, np.int64)
    stays[codes[order[last]]] = order[last]
    dropped = order[~last]
    kept = stays[codes[dropped]]
    sources = table["source"]
    twice = sorted({(sources[int(a)].as_py(), sources[int(b)].as_py()) for a, b in _pairs(table, dropped, kept)})
    for gone, held in twice:
        if gone != held:
            warnings.append(f"{gone}: same run as {held}, which was written later; counted once")
    differs = ~(np.isclose(value[dropped], value[kept], rtol=0, atol=1e-6, equal_nan=True))
    if differs.any():
        a, b = int(dropped[differs][0]), int(kept[differs][0])
        warnings.append(
            f"{int(differs.sum())} numbers differ between runs of one signature (first {value[a]:.6g} in"
            f" {sources[a].as_py()}, {value[b]:.6g} in {sources[b].as_py()}); the later ones are used"
        )


def _pairs(table: pa.Table, dropped: np.ndarray, kept: np.ndarray) -> Iterator[tuple[int, int]]:
    """One (dropped, kept) pair of rows per pair of sources."""
    code = _integer_codes(table["source"])
    _, first = np.unique(np.stack([code[dropped], code[kept]]), axis=1, return_index=True)
    return zip(dropped[first].tolist(), kept[first].tolist(), strict=True)


def _integer_codes(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Small integers that are equal where values are; nulls are 0."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return array.dictionary_encode().indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64) + 1


def predictions_beside(source: str) -> Path | None:
    """The predictions that the metrics file `source` was computed from, or None when they are gone."""
    path = Path(source)
    candidate = path.with_name(path.name.replace("metrics", "predictions", 1))
    return candidate if path.name.startswith("metrics") and candidate.is_file() else None
