"""ShardSet gives the stored pixels, cropped and resized, for any rows in any order."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from shards import InputError, ShardSet
from shards.read.decode import Decoder
from shards.read.index import Index


def test_images_are_the_stored_pixels_in_the_order_asked(small_set) -> None:
    folder, images = small_set
    shardset = ShardSet(folder, "train")
    first = shardset.index.splits["train"].start
    positions = np.array([36, 0, 5, 5, 17])
    batch = shardset.images(positions)
    assert batch.shape == (5, 1, 32, 32) and batch.dtype == torch.uint8
    for image, position in zip(batch, positions, strict=True):
        assert np.array_equal(image[0].numpy(), images[first + position])


def test_a_sample_says_which_row_it_is_and_what_is_known(small_set) -> None:
    folder, images = small_set
    shardset = ShardSet(folder, "val")
    assert len(shardset) == 5
    for position in range(5):
        sample = shardset[position]
        row = sample["row"]
        assert sample["key"] == f"val_{position:05d}" == shardset.index.key(row)
        assert np.array_equal(sample["image"][0].numpy(), images[row])
        expected = [shardset.index.label(name)[row] for name in shardset.labels]
        assert sample["labels"].tolist() == expected and sample["labels"].dtype == torch.int8
    assert shardset[-1]["key"] == "val_00004"
    with pytest.raises(IndexError):
        shardset[5]


def test_without_a_split_all_samples_are_there_in_index_order(small_set) -> None:
    folder, images = small_set
    shardset = ShardSet(folder)
    assert len(shardset) == len(images) == 53
    assert np.array_equal(shardset.images(np.arange(53))[:, 0].numpy(), np.stack(images))


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_oblong_images_are_cropped_at_the_centre_and_averaged_down(make_set, tmp_path: Path, ending: str) -> None:
    shapes = [(32, 47), (48, 32), (32, 32), (33, 32), (100, 40)]
    images = make_set(tmp_path / "set", splits={"train": 5}, shape=lambda i: shapes[i], ending=ending)
    shardset = ShardSet(tmp_path / "set", "train")
    for size in (32, 16, 12, 64):
        batch = shardset.images(np.arange(5), size=size)
        assert batch.shape == (5, 1, size, size)
        for got, stored in zip(batch, images, strict=True):
            height, width = stored.shape
            side = min(height, width)
            top, left = (height - side) // 2, (width - side) // 2
            centre = stored[top : top + side, left : left + side]
            if size < side:
                weights = area_weights(side, size)
                assert np.abs(got[0].numpy() - weights @ centre @ weights.T).max() <= 1
            elif size == side:
                assert np.array_equal(got[0].numpy(), centre)


def area_weights(side: int, size: int) -> np.ndarray:
    """Share of each source pixel in each target pixel, (size, side): overlap of the two grids."""
    edges, step = np.arange(side), side / size
    low, high = np.arange(size)[:, None] * step, np.arange(1, size + 1)[:, None] * step
    return np.clip(np.minimum(high, edges + 1) - np.maximum(low, edges), 0, None) / step


def test_halving_is_the_mean_of_four_pixels(make_set, tmp_path: Path) -> None:
    images = make_set(tmp_path / "set", splits={"train": 3})
    got = ShardSet(tmp_path / "set", "train", size=16).images(np.arange(3))[:, 0].numpy()
    exact = np.stack(images).reshape(3, 16, 2, 16, 2).astype(float).mean(axis=(2, 4))
    assert np.abs(got - exact).max() <= 0.5


WEBDATASET_ALONE = """
import glob, hashlib, sys, webdataset
urls = sorted(glob.glob(sys.argv[1] + "/train-*.tar"))
for sample in webdataset.WebDataset(urls, shardshuffle=False):
    print(sample["__key__"], hashlib.sha256(sample["jpg"]).hexdigest(), sample["json"].decode()[0])
"""


def test_webdataset_alone_reads_the_same_samples_from_the_same_tars(small_set) -> None:
    folder, _ = small_set
    shardset = ShardSet(folder, "train")
    command = [sys.executable, "-c", WEBDATASET_ALONE, str(folder)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert printed[::3] == shardset.index.keys(shardset.rows).tolist()
    assert printed[1::3] == [hashlib.sha256(shardset.stored(i)).hexdigest() for i in range(len(shardset))]


def test_select_reads_the_rows_of_a_fraction(small_set) -> None:
    folder, images = small_set
    rows = np.array([40, 3, 22])
    chosen = ShardSet(folder, "train").select(rows)
    assert len(chosen) == 3 and chosen.rows.tolist() == [40, 3, 22]
    assert np.array_equal(chosen.images(np.array([2, 0]))[:, 0].numpy(), np.stack([images[22], images[40]]))
    assert np.array_equal(chosen.labels_matrix(), chosen.index.labels_matrix(None, rows))
    with pytest.raises(InputError, match="rows must be"):
        chosen.select(np.array([53]))


def test_a_shard_set_travels_to_another_process(small_set) -> None:
    folder, _ = small_set
    shardset = ShardSet(folder, "test", size=20)
    copy = pickle.loads(pickle.dumps(shardset))
    assert torch.equal(copy.images(np.arange(11)), shardset.images(np.arange(11)))
    assert copy.card == shardset.card
    assert len(pickle.dumps(shardset)) < 1000  # the path, not the columns or the card


def test_torch_dataloader_with_processes_reads_it(small_set) -> None:
    folder, images = small_set
    loader = torch.utils.data.DataLoader(ShardSet(folder, "test"), batch_size=4, num_workers=2)
    batches = list(loader)
    got = torch.cat([batch["image"] for batch in batches])[:, 0].numpy()
    rows = torch.cat([batch["row"] for batch in batches]).numpy()
    assert np.array_equal(got, np.stack(images)[rows]) and len(got) == 11


def test_many_threads_and_more_tars_than_may_be_open_mix_nothing_up(make_set, tmp_path: Path) -> None:
    n = 30
    images = np.stack(make_set(tmp_path / "set", splits={"train": n}, per_shard=1, size=8, shape=lambda i: (8, 8)))
    shardset = ShardSet(tmp_path / "set", "train")
    shardset._decoder.most_open = 5
    wrong = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(20):
            positions = rng.integers(0, n, 50)
            if not np.array_equal(shardset.images(positions)[:, 0].numpy(), images[positions]):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(shardset._decoder._tars) <= 5
    still_open = [fd for fd in Path("/proc/self/fd").iterdir() if str(tmp_path) in os.path.realpath(fd)]
    assert len(still_open) <= 5


def test_a_missing_split_is_named_with_those_there_are(small_set) -> None:
    with pytest.raises(InputError, match="no split 'valid'.*test, train, val"):
        ShardSet(small_set[0], "valid")


def test_positions_outside_the_split_are_refused(small_set) -> None:
    shardset = ShardSet(small_set[0], "val")
    for position in (-1, 5):
        with pytest.raises(InputError, match="positions must be 0..4"):
            shardset.images(np.array([position]))


def test_a_folder_without_a_card_is_not_a_shard_set(make_set, tmp_path: Path) -> None:
    make_set(tmp_path / "set")
    (tmp_path / "set" / "dataset.json").unlink()
    with pytest.raises(InputError, match="not a shard set"):
        ShardSet(tmp_path / "set")


def test_an_index_of_another_set_is_refused(make_set, tmp_path: Path) -> None:
    make_set(tmp_path / "a")
    make_set(tmp_path / "b", splits={"train": 4})
    (tmp_path / "b" / "index.parquet").replace(tmp_path / "a" / "index.parquet")
    with pytest.raises(InputError, match=r"index.parquet was changed or damaged: its sha256 is .* that of the card is"):
        ShardSet(tmp_path / "a")


def test_a_cut_tar_a_missing_tar_and_garbled_bytes_are_errors_that_name_the_sample(make_set, tmp_path: Path) -> None:
    make_set(tmp_path / "set", splits={"train": 30})
    shardset = ShardSet(tmp_path / "set", "train")
    index = shardset.index
    tar = tmp_path / "set" / "train-000001.tar"
    whole = tar.read_bytes()
    tar.write_bytes(whole[: index.offset[15] + 20])
    with pytest.raises(InputError, match="train_00015.*ends before"):
        ShardSet(tmp_path / "set", "train").images(np.array([15]))
    broken = bytearray(whole)
    broken[index.offset[12] : index.offset[12] + 4] = b"????"
    end = index.offset[13] + index.size[13]
    broken[end - 2 : end] = b"\0\0"  # as a JPEG whose end was lost: decoders fill it with grey
    tar.write_bytes(broken)
    for row in (12, 13):
        with pytest.raises(InputError, match=f"train_000{row}.*not a whole JPEG.*cxrdist verify"):
            ShardSet(tmp_path / "set", "train").images(np.array([row]))
    tar.unlink()
    with pytest.raises(InputError, match=r"train-000001.tar.*No such file"):
        ShardSet(tmp_path / "set", "train").images(np.array([15]))


def test_real_x_rays_come_back_as_pillow_decodes_them(shared_data: Path, make_set, tmp_path: Path) -> None:
    real = sorted((shared_data / "chest_xray" / "test" / "NORMAL").glob("*"))[:12]
    make_set(tmp_path / "set", splits={"train": len(real)})
    index = Index.open(tmp_path / "set")
    content = b"".join(path.read_bytes() for path in real)
    sizes = np.array([path.stat().st_size for path in real])
    (tmp_path / "set" / "real.tar").write_bytes(content)
    index.shards, index.shard = ("real.tar",), np.zeros(len(real), np.int32)
    index.offset, index.size = np.cumsum(sizes) - sizes, sizes
    out = np.empty((len(real), 224, 224), np.uint8)
    Decoder(tmp_path / "set", index).into(np.arange(len(real)), out)
    for got, path in zip(out, real, strict=True):
        with Image.open(path) as file:
            file.draft("L", None)  # the luminance that the JPEG holds, not one made again from RGB
            assert np.array_equal(got, np.asarray(file))
    assert cv2.getNumThreads() == 1
