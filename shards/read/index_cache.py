"""index.parquet as plain arrays: read into memory, or built once into memory-mapped files beside it.

Ten million rows of Parquet take many seconds to decode; the same columns as raw arrays open in milliseconds and are
shared by all processes of a machine. The arrays live in a folder of .npy files that appears by one rename. Its name
holds the size and time of the Parquet file, so a changed index gets a new folder.

Strings with many values (keys, patients) become a table: all bytes one after another, and N+1 offsets. Strings with
few values (split, shard, view, sex) become small integer codes, -1 for null, and a tuple of names.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shards.atomic import sync, temporary_name
from shards.errors import InputError
from shards.format import LABEL
from shards.labels import NULL
from shards.locks import locked
from shards.parquet import column as column_of
from shards.parquet import opened

LAYOUT = 2  # raise when the arrays' meaning changes: older folders are then ignored
_CODES = {"split": np.int8, "shard": np.int32, "view": np.int8, "sex": np.int8}
_NUMBERS = {
    "offset": (np.int64, None),
    "size": (np.int32, None),
    "height": (np.int32, -1),
    "width": (np.int32, -1),
    "age": (np.float32, np.nan),
}
_NEEDED = ("key", "split", "patient_id", "shard", "offset", "size")
_BUILD_WAIT_SECONDS = 600.0

Part = tuple[str, np.ndarray]


def row_count(parquet: Path) -> int:
    """Number of rows of an index, from the Parquet footer."""
    with opened(parquet, parquet) as file:
        return file.metadata.num_rows


def read(parquet: Path, sha256: str | None = None) -> tuple[dict, dict[str, np.ndarray]]:
    """Names and arrays of an index, in memory.

    Raises:
        InputError: it cannot be read, or its content is not what `sha256` (64 hex digits) says.
    """
    meta: dict = {}
    arrays = dict(_columns(parquet, meta, sha256))
    return meta, arrays


def mapped(parquet: Path, sha256: str | None = None) -> tuple[dict, dict[str, np.ndarray]]:
    """Names and memory-mapped arrays of an index, building the files at first use.

    The content is compared with `sha256` (64 hex digits) when the files are built, and the files remember it: later
    openings read them and not the Parquet file, so they need not hash it again.

    Raises:
        InputError: the index cannot be read, its content is not what `sha256` says, or no folder can be written.
    """
    row_count(parquet)  # a missing or broken file is an error with its own words
    stat = parquet.stat()
    name = f".index-{LAYOUT}-{stat.st_size:x}-{stat.st_mtime_ns:x}"
    where = hashlib.sha256(str(parquet.resolve()).encode()).hexdigest()[:12]
    candidates = [parquet.parent / name, cache_root() / f"index-{where}" / name]
    for folder in candidates:
        if (folder / "meta.json").exists():
            if _of(folder, sha256):
                return _load(folder)
            shutil.rmtree(folder, ignore_errors=True)  # of another file of the same size and time
    problems = []
    for folder in candidates:
        try:
            _build_once(parquet, folder, sha256)
            return _load(folder)
        except OSError as error:
            problems.append(f"{folder.parent}: {error.strerror or error}")
    raise InputError(f"cannot write the memory-mapped copy of {parquet}: {'; '.join(problems)}; set CXRDIST_CACHE")


def cache_root() -> Path:
    """Folder for what can be made again: $CXRDIST_CACHE, or $XDG_CACHE_HOME/cxrdist, or ~/.cache/cxrdist."""
    if own := os.environ.get("CXRDIST_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cxrdist"


def _of(folder: Path, sha256: str | None) -> bool:
    """Whether a folder of arrays was made from the content that is wanted."""
    try:
        made_from = json.loads((folder / "meta.json").read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, KeyError):
        return False
    return sha256 is None or made_from == sha256


def _load(folder: Path) -> tuple[dict, dict[str, np.ndarray]]:
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    # As plain arrays: each access through the memmap class costs microseconds that a reader pays per sample.
    maps = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in meta["arrays"]}
    return meta, {name: array.view(np.ndarray) for name, array in maps.items()}


def _build_once(parquet: Path, folder: Path, sha256: str | None) -> None:
    """Build unless another process does; the others wait for it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = folder.with_name(f"{folder.name}.lock")
    try:
        with locked(lock, _BUILD_WAIT_SECONDS):
            if not folder.exists():
                _build(parquet, folder, sha256)
    finally:
        lock.unlink(missing_ok=True)


def _build(parquet: Path, folder: Path, sha256: str | None) -> None:
    """Write the arrays one column at a time, so that memory holds one column only."""
    meta: dict = {"arrays": []}
    temporary = temporary_name(folder.parent, folder.name)
    temporary.mkdir()
    try:
        for name, array in _columns(parquet, meta, sha256):
            np.save(temporary / f"{name}.npy", array, allow_pickle=False)
            sync(temporary / f"{name}.npy")
            meta["arrays"].append(name)
        (temporary / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
        sync(temporary / "meta.json")
        sync(temporary)
        try:
            os.rename(temporary, folder)
        except OSError:
            if not (folder / "meta.json").exists():  # another process was quicker: its files are as good
                raise
        for other in folder.parent.glob(".index-*"):
            if other.is_dir() and other.name != folder.name and not other.name.endswith(".tmp"):
                shutil.rmtree(other, ignore_errors=True)  # of an index that was since replaced
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _columns(parquet: Path, meta: dict, sha256: str | None) -> Iterator[Part]:
    """Yield the arrays of an index one by one and note the names in `meta`.

    What is hashed is what is decoded: both read one mapping of the file.
    """
    row_count(parquet)  # a missing or empty file is an error with its own words
    with pa.memory_map(str(parquet)) as content:
        data = content.read_buffer()
        meta["sha256"] = hashlib.sha256(data).hexdigest()
        if sha256 not in (None, meta["sha256"]):
            raise InputError(
                f"{parquet} was changed or damaged: its sha256 is {meta['sha256'][:12]}..., that of the card is"
                f" {str(sha256)[:12]}...; copy it again from an intact copy, or convert the dataset again"
            )
        yield from _arrays(parquet, data, meta)


def _arrays(parquet: Path, data: pa.Buffer, meta: dict) -> Iterator[Part]:
    with opened(data, parquet) as file:
        present = file.schema_arrow.names
        if missing := [name for name in _NEEDED if name not in present]:
            raise InputError(f"{parquet} lacks the column(s) {', '.join(missing)}: convert the dataset again")
        labels = [name for name in present if name.startswith(LABEL)]
        meta["n"] = file.metadata.num_rows
        meta["labels"] = [name.removeprefix(LABEL) for name in labels]

        def column(name: str) -> pa.ChunkedArray:
            return column_of(file, name, parquet)

        for name, dtype in _CODES.items():
            if name in present:
                codes, names = _codes(column(name))
                meta[f"{name}_names"] = names.to_pylist()
                yield name, codes.astype(dtype)
        for name, (dtype, null) in _NUMBERS.items():
            if name in present:
                yield name, _numbers(column(name), dtype, null, f"{parquet}: column {name}")
        yield from _strings("key", column("key"))
        patients = column("patient_id")
        if patients.null_count:  # a sample without a patient id counts as its own patient
            patients = pc.call_function("coalesce", [_as_strings(patients), _as_strings(column("key"))])
        codes, names = _codes(patients)
        del patients
        yield "patient", codes
        yield from _strings("patient_name", pa.chunked_array([names]))
        if "study_id" in present:
            codes, names = _codes(column("study_id"))
            yield "study", codes
            yield from _strings("study_name", pa.chunked_array([names]))
        matrix = np.empty((len(labels), meta["n"]), dtype=np.int8)
        for row, name in zip(matrix, labels, strict=True):
            row[:] = _numbers(column(name), np.int8, NULL, f"{parquet}: column {name}")
        yield "labels", matrix


def _as_strings(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.large_string())


def _codes(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """Code of each value, int32 (N,), -1 for null, and the values by code, in order of first appearance."""
    encoded = _as_strings(column).dictionary_encode().combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.unify_dictionaries().chunk(0) if encoded.num_chunks else None
    if encoded is None:
        return np.empty(0, np.int32), pa.array([], pa.large_string())
    return _values(encoded.indices, -1).astype(np.int32), encoded.dictionary


def _numbers(column: pa.ChunkedArray, dtype, null, where: str) -> np.ndarray:
    if column.null_count:
        if null is None:
            raise InputError(f"{where} has {column.null_count} empty value(s): convert the dataset again")
    parts = [_values(chunk, null) for chunk in column.chunks]
    return np.concatenate(parts).astype(dtype, copy=False) if parts else np.empty(0, dtype)


def _values(array: pa.Array, null: float | None) -> np.ndarray:
    """Numbers of an Arrow array, `null` where there is none.

    pyarrow's own conversion imports pandas, which would cost every rank of a training a second.
    """
    if not pa.types.is_primitive(array.type) or pa.types.is_boolean(array.type):
        return (array if null is None else array.fill_null(null)).to_numpy(zero_copy_only=False)
    if not array.null_count:
        return np.from_dlpack(array)
    assert null is not None, "no empty value is let through where nothing stands for it"
    held = np.frombuffer(array.buffers()[1], dtype=array.type.to_pandas_dtype())
    valid = np.from_dlpack(array.is_valid().cast(pa.uint8())).astype(bool)
    return np.where(valid, held[array.offset : array.offset + len(array)], null)


def _strings(name: str, column: pa.ChunkedArray) -> Iterator[Part]:
    array = pa.concat_arrays(_as_strings(column).chunks or [pa.array([], pa.large_string())])
    _, offsets, data = array.buffers()
    starts = np.frombuffer(offsets, dtype=np.int64) if offsets else np.zeros(1, np.int64)
    starts = starts[array.offset : array.offset + len(array) + 1]
    yield f"{name}_offsets", starts if len(starts) else np.zeros(1, np.int64)
    yield f"{name}_bytes", np.frombuffer(data, dtype=np.uint8) if data else np.zeros(0, np.uint8)
