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
from shards.convert.about import About
from shards.convert.config import MedmnistConfig
from shards.convert.opener import Opener, Stamp, file_stamp
from shards.convert.plan import Plan, build
from shards.convert.sample import Sample
from shards.errors import InputError

ABOUT = About(
    licence="CC BY 4.0",
    citation="""@article{yang2023medmnist,
  author = {Yang, Jiancheng and Shi, Rui and Wei, Donglai and Liu, Zequan and Zhao, Lin and Ke, Bilian and others},
  title = {MedMNIST v2: A large-scale lightweight benchmark for 2D and 3D biomedical image classification},
  journal = {Scientific Data},
  volume = {10},
  pages = {41},
  year = {2023}
}""",
    home="https://medmnist.com",
)
CHEST_LABELS = tuple(names.NIH_SPELLING)
"""ChestMNIST's label columns in its own order."""
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Published:
    """What distinguishes a dataset of MedMNIST from the others."""

    labels: tuple[str, ...]
    counts: tuple[int, int, int]
    """Images in train, val and test."""


KNOWN = {
    "pneumoniamnist": Published(("pneumonia",), (4708, 524, 624)),
    "chestmnist": Published(CHEST_LABELS, (78468, 11219, 22433)),
}
"""The chest X-rays of MedMNIST v2 (Table 1 of the paper); other sets of its 18 are refused."""


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
        self.arrays = f"{str(work).replace('%', '%%')}/%s-{size:x}-{time:x}.npy"  # another npz is unpacked again
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
        raise InputError(f"{npz} is not a MedMNIST file (not an npz archive)")
    try:
        with open(npz, "rb") as file, np.load(file, allow_pickle=False) as archive:
            targets = {split: archive[f"{split}_labels"] for split in SPLITS}
        shapes = {split: _shape(npz, f"{split}_images.npy") for split in SPLITS}
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{npz} is not a MedMNIST file ({' '.join(str(error).split())})") from error
    name = _which(npz, targets)
    labels = KNOWN[name].labels
    for split in SPLITS:
        shape, target = shapes[split], targets[split]
        if len(shape) == 4 and shape[-1] != 3:
            raise InputError(f"{npz}: {split} images {shape} are volumes; only two-dimensional X-rays can be read")
        if len(shape) not in (3, 4) or shape[0] != len(target) or target.ndim != 2 or target.shape[1] != len(labels):
            raise InputError(f"{npz}: {split} images {shape} and labels {target.shape} do not fit together")
        if not np.isin(target, (0, 1)).all():
            raise InputError(f"{npz}: {split}_labels hold values other than 0 and 1")
    return build(
        _samples(targets, labels),
        name=name,
        source="MedMNIST v2 (Yang et al., Scientific Data 2023)",
        about=ABOUT,
        labels=labels,
        split_scheme="official",
        opener=_opener(npz),
        notes=["no patient ids in MedMNIST: every image counts as its own patient"],
    )


def _opener(npz: Path) -> Opener:
    return NpzOpener(str(npz))


def _samples(targets: dict[str, np.ndarray], labels: tuple[str, ...]) -> Iterator[Sample]:
    for split in SPLITS:
        for number, values in enumerate(targets[split].astype(np.uint8).tolist()):
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


def _which(npz: Path, targets: dict[str, np.ndarray]) -> str:
    """Return the dataset that a file holds: by its name, else by how many images it has.

    Raises:
        InputError: it is another dataset, or cannot be recognised.
    """
    counts = tuple(len(targets[split]) for split in SPLITS)
    width = targets["train"].shape[1] if targets["train"].ndim == 2 else 0
    named = next((name for name in KNOWN if npz.name.lower().startswith(name)), None)
    alike = next((name for name, known in KNOWN.items() if counts == known.counts and width == len(known.labels)), None)
    name = named or alike
    if name is None:
        numbers = " + ".join(map(str, counts))
        raise InputError(
            f"{npz} is neither PneumoniaMNIST nor ChestMNIST: its name does not say so, and {numbers} images fit "
            "neither; your own images go in by `cxrdist shard csv`"
        )
    if width != len(KNOWN[name].labels):
        raise InputError(f"{npz}: {width} label columns; {name} has {len(KNOWN[name].labels)}")
    return name
