"""From published files through the converters and back: pixels, labels and rows stay together."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards import Order, ShardSet
from shards.convert.config import MedmnistConfig, NihConfig
from shards.convert.engine import convert
from shards.convert.registry import plan
from shards.read.fractions import fraction_manifest
from shards.read.loader import Loader


def quiet(line: str) -> None:
    """Take a line of progress."""


@pytest.fixture(scope="module")
def mnist(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[ShardSet, dict[str, np.ndarray]]:
    source = shared_data / "medmnist" / "pneumoniamnist.npz"
    config = MedmnistConfig(src=str(source), out=str(tmp_path_factory.mktemp("mnist") / "set"), workers=1)
    convert(plan(config), config, say=quiet)
    with np.load(source, allow_pickle=False) as arrays:
        return ShardSet(config.out), dict(arrays)


def published(arrays: dict[str, np.ndarray], split: str) -> tuple[np.ndarray, np.ndarray]:
    return arrays[f"{split}_images"], arrays[f"{split}_labels"][:, 0]


def test_all_of_pneumoniamnist_comes_back_bit_for_bit_with_its_labels(mnist) -> None:
    everything, arrays = mnist
    assert len(everything) == 4708 + 524 + 624
    for split in ("train", "val", "test"):
        shardset = ShardSet(everything.path, split)
        images, labels = published(arrays, split)
        got = shardset.images(np.arange(len(shardset)))[:, 0].numpy()
        # Rows are in the order of the set, not of the file: compare as sets of (image, label) with their numbers.
        stored = sorted(zip((image.tobytes() for image in got), shardset.labels_matrix()[:, 0].tolist(), strict=True))
        expected = sorted(zip((image.tobytes() for image in images), labels.tolist(), strict=True))
        assert stored == expected


def test_an_epoch_over_two_ranks_shows_each_published_image_once(mnist) -> None:
    everything, arrays = mnist
    val = ShardSet(everything.path, "val")
    order = Order(len(val), seed=4, global_batch=128)
    steps = order.steps(1)
    batches = [
        [images for _, _, images in Loader(val, order, rank=rank, world=2, stop_step=steps, workers=2)]
        for rank in range(2)
    ]
    stream = np.concatenate([half[:, 0].numpy() for step in zip(*batches, strict=True) for half in step])
    images, _ = published(arrays, "val")
    assert sorted(image.tobytes() for image in stream[: len(val)]) == sorted(image.tobytes() for image in images)


def test_a_tenth_of_pneumoniamnist_has_the_share_of_pneumonia_of_all(mnist) -> None:
    everything, arrays = mnist
    train = ShardSet(everything.path, "train")
    _, labels = published(arrays, "train")
    for fraction in (0.01, 0.1, 0.25, 0.5):
        chosen = train.select(fraction_manifest(train.index, train.rows, fraction, 0).rows)
        assert abs(len(chosen) - fraction * len(train)) <= 1
        assert abs((chosen.labels_matrix()[:, 0] == 1).sum() - fraction * labels.sum()) <= 2


def test_nih_images_come_back_as_the_published_ones_shrunk(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "nih"
    config = NihConfig(src=str(source), out=str(tmp_path / "set"), allow_missing=True, workers=1)
    convert(plan(config), config, say=quiet)
    everything = ShardSet(tmp_path / "set")
    with open(source / "Data_Entry_2017_v2020.csv", newline="") as file:
        table = {row["Image Index"]: row for row in csv.DictReader(file)}
    assert len(everything) == 35
    patients = everything.index.patient_id()
    for position in range(len(everything)):
        sample = everything[position]
        row = table[f"{sample['key']}.png"]
        with Image.open(next(source.glob(f"images_*/images/{sample['key']}.png"))) as file:
            whole = np.asarray(file.convert("L"), dtype=float)
        expected = whole.reshape(256, 4, 256, 4).mean(axis=(1, 3))
        difference = sample["image"][0].numpy() - expected
        assert np.sqrt((difference**2).mean()) < 1.5 and abs(difference.mean()) < 0.3  # JPEG of quality 95
        found = {label for label, value in zip(everything.labels, sample["labels"], strict=True) if value == 1}
        assert ("effusion" in row["Finding Labels"].lower()) == ("pleural_effusion" in found)
        assert ("No Finding" in row["Finding Labels"]) == (found <= {"no_finding"})
        assert int(patients[position]) == int(row["Patient ID"])
