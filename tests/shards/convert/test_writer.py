"""A shard set keeps its contract, and its bytes depend on source and settings alone."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from shards import InputError, read_card
from shards.format import card_bytes
from tests.shards.convert.conftest import grey_file, hashes, make, stored, write_nih


def test_the_folder_is_the_contract(nih_config) -> None:
    config = nih_config()
    index, _, _ = make(config)
    out = Path(config.out)
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["dataset.json", "index.parquet", "rejects.parquet"] + sorted(set(index["shard"]))
    )
    assert list(index)[:12] == (
        ["key", "split", "patient_id", "shard", "offset", "size", "view", "sex", "age", "height", "width", "source"]
    )
    assert all(name.startswith("label_") for name in list(index)[12:])
    assert all(index[name].dtype == "int8" for name in list(index)[12:])
    card = read_card(out)
    assert card.source.startswith("NIH ChestX-ray14")
    assert card.n_samples == 24 and card.image_size == 32 and sum(shard["n"] for shard in card.shards) == 24


def test_one_pread_reads_an_image_and_the_json_beside_it_tells_the_same(nih_config) -> None:
    config = nih_config()
    index, _, _ = make(config)
    for row in index.to_dict("records"):
        image = stored(config.out, row)
        assert image.shape == (32, 32) and image.dtype == np.uint8
        source = grey_file(Path(config.src) / row["source"])
        wanted = cv2.resize(source, (32, 32), interpolation=cv2.INTER_AREA)
        assert np.abs(image.astype(int) - wanted).max() <= 8
        with tarfile.open(Path(config.out) / row["shard"]) as tar:
            file = tar.extractfile(f"{row['key']}.json")
            assert file is not None
            told = json.load(file)
        assert told["patient_id"] == row["patient_id"] and told["height"] == 40
        assert told["labels"]["no_finding"] == row["label_no_finding"]


def test_tars_carry_no_time_and_no_owner(nih_config) -> None:
    config = nih_config()
    make(config)
    for path in Path(config.out).glob("*.tar"):
        with tarfile.open(path) as tar:
            assert {(info.mtime, info.uid, info.gid, info.uname, info.mode) for info in tar} == {(0, 0, 0, "", 0o644)}


def test_the_card_tells_mean_and_deviation_of_the_train_pixels(nih_config) -> None:
    config = nih_config(image_format="png", val_fraction=0.3)
    index, _, _ = make(config)
    pixels = [stored(config.out, row) / 255 for row in index.to_dict("records") if row["split"] == "train"]
    card = read_card(config.out)
    assert card.mean == pytest.approx(np.mean(pixels), abs=1e-7)
    assert card.std == pytest.approx(np.std(pixels), abs=1e-7)


def test_any_number_of_workers_gives_the_same_bytes(tmp_path: Path, nih_config) -> None:
    write_nih(tmp_path / "big", patients=30, each=8)
    found = []
    for workers in (1, 2, 3):
        config = nih_config(out=f"w{workers}", src=str(tmp_path / "big"), workers=workers, shard_size=100)
        make(config)
        found.append(hashes(Path(config.out)))
    assert found[0] == found[1] == found[2]


def test_independent_parts_and_one_merge_give_the_same_bytes(nih_config) -> None:
    whole, parted = nih_config("whole"), nih_config("parted")
    make(whole)
    from shards.convert.engine import convert
    from shards.convert.registry import plan

    for part in ("2/3", "0/3"):
        config = nih_config("parted", part=part)
        assert convert(plan(config), config, say=lambda line: None) is None
    config = nih_config("parted", merge=True)
    with pytest.raises(InputError, match="tars .* are not made yet"):
        convert(plan(config), config)
    with pytest.raises(InputError, match="not finished"):
        read_card(parted.out)
    config = nih_config("parted", part="1/3")
    convert(plan(config), config, say=lambda line: None)
    make(nih_config("parted", merge=True))
    assert hashes(Path(whole.out)) == hashes(Path(parted.out))


@pytest.mark.parametrize("part", ["3/3", "1", "a/b", "-1/2", "1/0"])
def test_a_part_that_cannot_be_is_refused(nih_config, part: str) -> None:
    with pytest.raises(InputError, match="--part"):
        make(nih_config(part=part))


def test_a_complete_set_is_left_as_it_is_and_another_is_not_overwritten(nih_config) -> None:
    config = nih_config()
    make(config)
    before = {path: path.stat().st_mtime_ns for path in Path(config.out).iterdir()}
    from shards.convert.engine import convert
    from shards.convert.registry import plan

    told: list[str] = []
    card = convert(plan(config), config, say=told.append)
    assert card is not None and "complete already" in told[-1]
    with pytest.raises(InputError, match="holds another shard set"):
        make(nih_config(quality=50))
    assert {path: path.stat().st_mtime_ns for path in Path(config.out).iterdir()} == before


def test_a_folder_with_something_else_in_it_is_not_touched(tmp_path: Path, nih_config) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="exists and is not an unfinished conversion"):
        make(nih_config())
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        make(nih_config("file"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]


def test_an_unfinished_conversion_goes_on_only_with_the_same_settings(nih_config) -> None:
    from shards.convert.engine import convert
    from shards.convert.registry import plan

    config = nih_config(part="0/2")
    convert(plan(config), config, say=lambda line: None)
    with pytest.raises(InputError, match="unfinished conversion of other data or settings"):
        make(nih_config(quality=50))
    make(nih_config(workers=2))
    whole = nih_config("whole")
    make(whole)
    assert hashes(Path(config.out)) == hashes(Path(whole.out))


def test_a_card_that_was_edited_or_cut_off_is_refused(nih_config) -> None:
    config = nih_config()
    make(config)
    path = Path(config.out) / "dataset.json"
    whole = path.read_bytes()
    assert card_bytes(read_card(config.out)) == whole
    path.write_bytes(whole.replace(b'"n_samples": 24', b'"n_samples": 25'))
    with pytest.raises(InputError, match="edited or damaged"):
        read_card(config.out)
    for data in (whole[:100], b"", b"[]", b"\xff\xfe"):
        path.write_bytes(data)
        with pytest.raises(InputError, match="damaged"):
            read_card(config.out)
    path.write_bytes(whole.replace(b'"format_version": 1', b'"format_version": 99'))
    with pytest.raises(InputError, match="format_version 99"):
        read_card(config.out)


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path, nih_config) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file" / "below", Path("/proc/none/below")):
        with pytest.raises(InputError, match="cannot be made .*choose a folder you may write"):
            make(nih_config(out=str(out)))
