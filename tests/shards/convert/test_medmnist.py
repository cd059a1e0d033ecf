from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from webdataset import compat

from shards import InputError, read_card
from shards.convert.config import MedmnistConfig
from shards.convert.registry import plan
from tests.shards.convert.conftest import make, stored


def write_npz(
    path: Path, labels: int = 1, shape: tuple[int, ...] = (28, 28), compressed: bool = True, **changes
) -> Path:
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 70), ("val", 9), ("test", 11)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, *shape)).astype(np.uint8)
        arrays[f"{split}_labels"] = rng.integers(0, 2, (count, labels)).astype(np.uint8)
    (np.savez_compressed if compressed else np.savez)(path, **(arrays | changes))
    return path


def config(npz: Path, **changes) -> MedmnistConfig:
    return MedmnistConfig(**{"src": str(npz), "out": str(npz.parent / "out"), "workers": 1, **changes})


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("side", [28, 64])
def test_every_pixel_and_label_of_the_npz_comes_back(tmp_path: Path, side: int, compressed: bool) -> None:
    npz = write_npz(tmp_path / "pneumoniamnist.npz", shape=(side, side), compressed=compressed)
    index, rejects, _ = make(config(npz))
    arrays = np.load(npz)
    assert len(index) == 90 and len(rejects) == 0
    for row in index.to_dict("records"):
        name, number = row["source"].split("/")
        assert np.array_equal(stored(tmp_path / "out", row), arrays[name][int(number)])
        assert row["label_pneumonia"] == arrays[f"{row['split']}_labels"][int(number), 0]
    card = read_card(tmp_path / "out")
    assert (card.image_size, card.image_format, card.patients_known) == (side, "png", False)
    train = arrays["train_images"] / 255
    assert card.mean == pytest.approx(train.mean(), abs=1e-7) and card.std == pytest.approx(train.std(), abs=1e-7)


def test_chestmnist_has_its_14_labels_in_its_own_order(tmp_path: Path) -> None:
    npz = write_npz(tmp_path / "chestmnist_64.npz", labels=14)
    index, _, _ = make(config(npz))
    card = read_card(tmp_path / "out")
    assert card.name == "chestmnist" and card.labels[2] == "pleural_effusion" and card.labels[-1] == "hernia"
    row = index.iloc[0]
    number = int(row.source.split("/")[1])
    assert [row[f"label_{name}"] for name in card.labels] == np.load(npz)[f"{row.split}_labels"][number].tolist()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_the_tars_as_they_are(tmp_path: Path) -> None:
    # webdataset leaves closing its files to the garbage collector
    make(config(write_npz(tmp_path / "pneumoniamnist.npz")))
    tars = sorted(str(path) for path in (tmp_path / "out").glob("*.tar"))
    reader: Any = compat.WebDataset  # its chained methods are unseen by type checkers
    samples = list(reader(tars, shardshuffle=False).decode("l8"))
    gc.collect()
    assert len(samples) == 90
    assert samples[0]["png"].shape == (28, 28)
    assert samples[0]["json"]["key"] == samples[0]["__key__"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": 3}, "3 label columns"),
        ({"train_labels": np.full((70, 1), 7, np.uint8)}, "other than 0 and 1"),
        ({"val_images": np.zeros((3, 28, 28), np.uint8)}, "do not fit together"),
        ({"test_images": np.zeros((11, 28, 28), np.float32)}, "must be uint8"),
    ],
)
def test_npz_that_is_not_a_chest_medmnist_is_refused(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(config(write_npz(tmp_path / "pneumoniamnist.npz", **changes)))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("breastmnist.npz", {}, "neither PneumoniaMNIST nor ChestMNIST.*70 \\+ 9 \\+ 11 images"),
        ("chestmnist.npz", {}, "1 label columns; chestmnist has 14"),
        ("pneumoniamnist.npz", {"shape": (28, 28, 28)}, "are volumes"),
    ],
)
def test_other_sets_of_medmnist_are_refused(name: str, options: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        make(config(write_npz(tmp_path / name, **options)))


def test_labels_written_as_bool_are_labels(tmp_path: Path) -> None:
    target = np.arange(70)[:, None] % 3 == 0
    index = make(config(write_npz(tmp_path / "pneumoniamnist.npz", train_labels=target)))[0]
    assert index[index.split == "train"].label_pneumonia.sum() == 24


def test_a_renamed_file_is_recognised_by_its_counts(shared_data: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.npz").symlink_to(shared_data / "medmnist" / "pneumoniamnist.npz")
    assert plan(config(tmp_path / "mine.npz")).name == "pneumoniamnist"


def test_damaged_or_absent_npz_is_one_clear_error(tmp_path: Path) -> None:
    npz = write_npz(tmp_path / "pneumoniamnist.npz")
    npz.write_bytes(npz.read_bytes()[:500])
    with pytest.raises(InputError, match="not a MedMNIST file"):
        make(config(npz))
    with pytest.raises(InputError, match="no such file or folder"):
        make(config(tmp_path / "nowhere.npz"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="found none"):
        make(config(tmp_path / "empty"))


def test_pickled_arrays_are_never_loaded(tmp_path: Path) -> None:
    npz = write_npz(tmp_path / "pneumoniamnist.npz", train_labels=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError, match="not a MedMNIST file"):
        make(config(npz))


def test_real_pneumoniamnist_has_the_published_counts(shared_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(MedmnistConfig(src=str(shared_data / "medmnist" / "pneumoniamnist.npz"), out=str(out), workers=2))
    counts = read_card(out).counts
    assert {split: counts[split]["n"] for split in counts} == {"test": 624, "train": 4708, "val": 524}
    assert counts["train"]["labels"]["pneumonia"] == {"positive": 3494, "negative": 1214, "uncertain": 0, "null": 0}
    assert counts["test"]["labels"]["pneumonia"]["positive"] == 390
