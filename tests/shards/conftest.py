"""Shard sets made by hand, without the converters: what a reader may rely on is the contract alone."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards.format import FORMAT_VERSION, Card, card_bytes
from tests.web import Web, serving

LABELS = ("pneumonia", "edema")

STAGE = """
import sys
from shards.read.stage import stage
print(stage(sys.argv[1], "disk", sys.argv[2]))
"""
"""A process that stages ADDRESS CACHE and prints the copy's folder."""


def by_hand(
    folder: Path,
    *,
    splits: dict[str, int] | None = None,
    per_shard: int = 10,
    shape: Callable[[int], tuple[int, int]] = lambda i: (32, 32),
    ending: str = "jpg",
    size: int = 32,
    seed: int = 0,
) -> list[np.ndarray]:
    """Write a shard set of noise images; gives what a decoder must find in them, in index order."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    rows, entries, images = [], [], []
    for split, n in sorted((splits or {"train": 37, "val": 5, "test": 11}).items()):
        for number, first in enumerate(range(0, n, per_shard)):
            name = f"{split}-{number:06d}.tar"
            count = min(per_shard, n - first)
            with tarfile.open(folder / name, "w", format=tarfile.USTAR_FORMAT) as tar:
                for i in range(first, first + count):
                    small = rng.integers(0, 256, (5, 5)).astype(np.uint8)
                    height, width = shape(i)
                    pixels = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
                    data = cv2.imencode(f".{ending}", pixels)[1].tobytes()
                    key = f"{split}_{i:05d}"
                    row: dict[str, Any] = {"key": key, "split": split, "patient_id": f"p{split}{i // 3}", "shard": name}
                    row["offset"] = tar.fileobj.tell() + 512  # type: ignore[union-attr]
                    row["size"] = len(data)
                    _add(tar, f"{key}.{ending}", data)
                    labels = {label: (1, 0, -1, None)[rng.integers(4)] for label in LABELS}
                    _add(tar, f"{key}.json", json.dumps(labels).encode())
                    row |= {"view": "PA", "sex": [None, "M", "F"][i % 3], "age": None if i % 4 == 0 else float(i)}
                    row |= {"height": height, "width": width, "source": f"{key}.png"}
                    rows.append(row | {f"label_{label}": value for label, value in labels.items()})
                    images.append(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE))
            tar_bytes = (folder / name).read_bytes()
            entries.append(
                {"name": name, "split": split, "n": count, "bytes": len(tar_bytes), "sha256": _sha(tar_bytes)}
            )
    index = pa.Table.from_pylist(rows, schema=_schema())
    pq.write_table(index, folder / "index.parquet", row_group_size=16)
    write_card(folder, entries, len(rows), size, ending)
    return images


def write_card(folder: Path, entries: list[dict], n: int, size: int, ending: str) -> None:
    """Write dataset.json for tars and an index that are there."""
    counts: dict[str, dict[str, int]] = {}
    for entry in entries:
        counts.setdefault(entry["split"], {"n": 0})["n"] += entry["n"]
    card = Card(
        format_version=FORMAT_VERSION,
        name="by_hand",
        labels=LABELS,
        counts=counts,
        image_size=size,
        image_format=ending,
        mean=0.5,
        std=0.25,
        split_scheme="by_hand",
        split_detail={},
        shards=tuple(entries),
        files={},
        index_sha256=_sha((folder / "index.parquet").read_bytes()),
        n_samples=n,
        n_rejects=0,
        shared_patients={},
        patients_known=True,
        config={},
        conversion="",
    )
    (folder / "dataset.json").write_bytes(card_bytes(card))


def _schema() -> pa.Schema:
    text = {name: pa.string() for name in ("key", "split", "patient_id", "shard")}
    numbers = {"offset": pa.int64(), "size": pa.int64()}
    rest = {"view": pa.string(), "sex": pa.string(), "age": pa.float32(), "height": pa.int32(), "width": pa.int32()}
    labels = {f"label_{label}": pa.int8() for label in LABELS}
    return pa.schema(list({**text, **numbers, **rest, "source": pa.string(), **labels}.items()))


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def make_set() -> Callable[..., list[np.ndarray]]:
    """The function `by_hand`."""
    return by_hand


@pytest.fixture(scope="session")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[np.ndarray]]:
    """53 square 32-pixel samples in train, val and test, not to be changed; and their images in index order."""
    folder = tmp_path_factory.mktemp("small") / "set"
    return folder, by_hand(folder)


@pytest.fixture
def folder(make_set, tmp_path: Path) -> Path:
    """A small shard set to be staged."""
    make_set(tmp_path / "set")
    return tmp_path / "set"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Where the copies go."""
    return tmp_path / "cache"


@pytest.fixture
def web(folder: Path) -> Iterator[Web]:
    """The shard set at an address: WEB.url/set."""
    with serving(folder.parent) as server:
        yield server


def same_files(copy: Path, folder: Path) -> bool:
    """Whether a staged copy holds the same files, hidden ones left out."""
    names = {path.name for path in folder.iterdir()}
    found = {path.name for path in copy.iterdir() if not path.name.startswith(".")}
    return found == names and all((copy / name).read_bytes() == (folder / name).read_bytes() for name in names)
