"""PneumoniaMNIST and ChestMNIST (MedMNIST v2, Yang et al., Scientific Data 2023): one npz file of small images."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from shards import labels as names
from shards.atomic import write_with
from shards.config import MedmnistConfig
from shards.errors import InputError
from shards.opener import Opener, Stamp, file_stamp
from shards.plan import Plan, build
from shards.sample import Sample

CHEST_LABELS = tuple(names.NIH_SPELLING)
"""ChestMNIST's label columns in its own order."""
SPLITS = ("train", "val", "test")


@dataclass
class NpzOpener:
    """Reads one image of an npz: sources are "train_images/17".

    The arrays are unpacked once into the conversion's work folder and memory-mapped from there, so that no worker
    ever holds a whole array.
    """

    npz: str
    arrays: str = ""
    """Where the arrays are, "%s" standing for their name; set by `prepare`."""
    _arrays: dict[str, Any] = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {"npz": self.npz, "arrays": self.arrays, "_arrays": {}}

    def prepare(self, work: Path) -> None:
        """Unpack the image arrays."""
        size, time, _ = self.stamp("")
        self.arrays = f"{str(work).replace('%', '%%')}/%s-{size:x}-{time:x}.npy"  # another npz unpacks anew
        with zipfile.ZipFile(self.npz) as archive:
            for name in (f"{split}_images" for split in SPLITS):
                target = Path(self.arrays % name)
                if not target.exists() and f"{name}.npy" in archive.namelist():
                    write_with(target, lambda path, name=name: _unpack(archive, f"{name}.npy", path))

    def stamp(self, source: str) -> Stamp:
        """Return the stamp of the npz."""
        return file_stamp(self.npz)

    def __call__(self, source: str) -> np.ndarray:
        """Return the uint8 (H, W) or (H, W, 3) image of a source."""
        name, _, number = source.partition("/")
        if name not in self._arrays:
            self._arrays[name] = np.load(self.arrays % name, mmap_mode="r", allow_pickle=False)
        return np.asarray(self._arrays[name][int(number)])


def _unpack(archive: zipfile.ZipFile, name: str, path: Path) -> None:
    with archive.open(name) as source, open(path, "wb") as target:
        while piece := source.read(1 << 22):
            target.write(piece)


def plan_medmnist(config: MedmnistConfig) -> Plan:
    """Return the plan of a MedMNIST conversion; `config.src` is the npz or a folder with exactly one chest npz.

    Raises:
        InputError: not such a file, or its arrays do not fit together.
    """
    npz = find_npz(Path(config.src))
    if not zipfile.is_zipfile(npz):
        raise InputError(f"{npz} is not a MedMNIST file (no npz archive)")
    try:
        with open(npz, "rb") as file, np.load(file, allow_pickle=False) as archive:
            targets = {split: archive[f"{split}_labels"] for split in SPLITS}
        shapes = {split: _shape(npz, f"{split}_images.npy") for split in SPLITS}
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{npz} is not a MedMNIST file ({' '.join(str(error).split())})") from error
    labels = _labels(npz, targets["train"])
    for split in SPLITS:
        shape, target = shapes[split], targets[split]
        if len(shape) not in (3, 4) or shape[0] != len(target) or target.ndim != 2 or target.shape[1] != len(labels):
            raise InputError(f"{npz}: {split} images {shape} and labels {target.shape} do not fit together")
        if not np.isin(target, (0, 1)).all():
            raise InputError(f"{npz}: {split}_labels hold values other than 0 and 1")
    return build(
        _samples(targets, labels),
        name="pneumoniamnist" if len(labels) == 1 else "chestmnist",
        source="MedMNIST v2 (Yang et al., Scientific Data 2023)",
        labels=labels,
        split_scheme="official",
        opener=_opener(npz),
        notes=["no patient ids in MedMNIST: every image counts as its own patient"],
    )


def _opener(npz: Path) -> Opener:
    return NpzOpener(str(npz))


def _samples(targets: dict[str, np.ndarray], labels: tuple[str, ...]) -> Iterator[Sample]:
    for split in SPLITS:
        for number, values in enumerate(targets[split].tolist()):
            yield Sample(
                source=f"{split}_images/{number}",
                key=f"{split}_{number:06d}",
                split=split,
                labels=dict(zip(labels, values, strict=True)),
            )


def find_npz(src: Path) -> Path:
    """Return the npz file meant by `src`."""
    if src.is_file():
        return src
    if not src.is_dir():
        raise InputError(f"--src {src}: no such file or folder")
    found = sorted([*src.glob("pneumoniamnist*.npz"), *src.glob("chestmnist*.npz")])
    if len(found) != 1:
        listed = ", ".join(path.name for path in found) or "none"
        raise InputError(
            f"--src {src}: one pneumoniamnist or chestmnist npz is expected, found {listed}; name the file"
        )
    return found[0]


def _shape(npz: Path, member: str) -> tuple[int, ...]:
    """Return the shape of an array in the npz from its header."""
    with zipfile.ZipFile(npz) as archive, archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, kind = read(file)
    if fortran or kind != np.dtype(np.uint8):
        raise InputError(f"{npz}: {member} must be uint8 in C order, it is {kind}")
    return shape


def _labels(npz: Path, target: np.ndarray) -> tuple[str, ...]:
    count = target.shape[1] if target.ndim == 2 else 0
    if count == 1:
        return ("pneumonia",)
    if count == len(CHEST_LABELS):
        return CHEST_LABELS
    raise InputError(f"{npz}: {count} label columns; PneumoniaMNIST has 1, ChestMNIST {len(CHEST_LABELS)}")
