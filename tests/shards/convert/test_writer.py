from __future__ import annotations

import io
import json
import os
import resource
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import psutil
import pytest

from shards import FailedError, InputError, read_card
from shards.card import card_bytes
from shards.pool import run_jobs
from tests.shards.convert.conftest import grey_file, hashes, jpeg, make, picture, png, stored, write_nih

ROOT = Path(__file__).resolve().parents[3]


def command(config, **more) -> list[str]:
    words = {"size": config.size, "shard_size": config.shard_size, "max_rejects": config.max_rejects, **more}
    options = [word for name, value in words.items() for word in (f"--{name}", str(value))]
    return [sys.executable, "-m", "jobs.cli", "shard", "nih", "--src", config.src, "--out", config.out, *options]


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
    from shards.converters import plan
    from shards.writer import convert

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
    from shards.converters import plan
    from shards.writer import convert

    told: list[str] = []
    card = convert(plan(config), config, say=told.append)
    assert card is not None and "complete already" in told[-1]
    with pytest.raises(InputError, match="holds another shard set"):
        make(nih_config(quality=50))
    assert {path: path.stat().st_mtime_ns for path in Path(config.out).iterdir()} == before


def test_a_folder_with_something_else_in_it_is_not_touched(tmp_path: Path, nih_config) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="exists and is no unfinished conversion"):
        make(nih_config())
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        make(nih_config("file"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]


REJECTS = {
    "00000001_000.png": (b"", "empty file"),
    "00000001_001.png": (png(picture(1, 200, 200))[:3000], "damaged"),
    "00000001_002.png": (b"<html>503</html>", "not a PNG"),
    "00000002_000.png": (png(np.zeros((1, 1), np.uint8)), "too small"),
}


def test_unusable_files_are_rejects_with_a_reason_and_source_is_samples_plus_rejects(nih: Path, nih_config) -> None:
    for name, (data, _) in REJECTS.items():
        (nih / "images_001" / "images" / name).write_bytes(data)
    (nih / "images_001" / "images" / "00000002_001.png").unlink()
    (nih / "images_001" / "images" / "00000002_001.png").mkdir()
    index, rejects, _ = make(nih_config(max_rejects=0.5, allow_missing=True))
    assert len(index) + len(rejects) == 24
    reasons = {Path(source).name: reason for source, reason in zip(rejects.source, rejects.reason, strict=True)}
    for name, (_, reason) in REJECTS.items():
        assert reason in reasons[name]
    assert reasons["00000002_001.png"] == "row without an image file"
    assert not set(rejects.source.map(lambda source: Path(source).stem)) & set(index.key)


def test_16_bit_cmyk_and_palette_images_among_others_become_samples(nih: Path, nih_config) -> None:
    from PIL import Image

    folder = nih / "images_001" / "images"
    (folder / "00000001_000.png").write_bytes(png(picture(1).astype(np.uint16) * 257))
    buffer = io.BytesIO()
    Image.fromarray(picture(2)).convert("CMYK").save(buffer, "jpeg")
    (folder / "00000001_001.png").write_bytes(buffer.getvalue())
    (folder / "00000001_002.png").write_bytes(jpeg(picture(3)))
    Image.fromarray(picture(4)).convert("P").save(folder / "00000001_003.png")
    index, rejects, _ = make(nih_config())
    assert len(index) == 24 and len(rejects) == 0


def test_too_many_rejects_stop_the_run_with_the_reasons_and_more_may_be_allowed(nih: Path, nih_config) -> None:
    for name in ("00000001_000.png", "00000003_001.png"):
        (nih / "images_001" / "images" / name).write_bytes(b"not an image")
    config = nih_config()
    with pytest.raises(FailedError, match="more than --max_rejects 0.01 .*not a PNG"):
        make(config)
    with pytest.raises(InputError, match="not finished"):
        read_card(config.out)
    assert "not a PNG" in pd.read_parquet(Path(config.out) / "rejects.parquet").reason[0]
    index, rejects, _ = make(nih_config(max_rejects=0.1))
    assert len(index) == 22 and len(rejects) == 2


def test_the_limit_of_rejects_holds_over_all_parts(nih: Path, nih_config) -> None:
    for path in sorted((nih / "images_001" / "images").glob("*_000.png")):
        path.write_bytes(b"not an image")
    from shards.converters import plan
    from shards.writer import convert

    for number in range(2):
        config = nih_config(part=f"{number}/2", max_rejects=1.0)
        convert(plan(config), config, say=lambda line: None)
    with pytest.raises(FailedError, match="6 of 24 sources are unusable"):
        make(nih_config(merge=True))


def test_an_unfinished_conversion_goes_on_only_with_the_same_settings(nih_config) -> None:
    from shards.converters import plan
    from shards.writer import convert

    config = nih_config(part="0/2")
    convert(plan(config), config, say=lambda line: None)
    with pytest.raises(InputError, match="unfinished conversion of other data or settings"):
        make(nih_config(quality=50))
    make(nih_config(workers=2))
    whole = nih_config("whole")
    make(whole)
    assert hashes(Path(config.out)) == hashes(Path(whole.out))


# One child per rename: it ends without any clean-up at the N-th time a file gets its final name, just before it for
# even N, just after it for odd N. The last child ends well. Prints the number of deaths.
DIE_AT_RENAME = """
import os, sys
import cv2, pyarrow, simplejpeg
from jobs.cli import main
out, *words = sys.argv[1:]
real = os.replace
for when in range(1, 60):
    child = os.fork()
    if child == 0:
        count = 0
        def replace(source, target, **options):
            global count
            count += 1
            if count == when and when % 2 == 0:
                os._exit(9)
            real(source, target, **options)
            if count == when:
                os._exit(9)
        os.replace = replace
        os._exit(main([*words, "--out", f"{out}{when}"]))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != 9:
        print(when - 1)
        sys.exit(status)
"""


def test_killed_at_any_file_the_same_command_gives_the_bytes_of_an_unbroken_run(nih_config) -> None:
    whole, killed = nih_config("whole", shard_size=100), nih_config("killed", shard_size=100)
    make(whole)
    wanted = hashes(Path(whole.out))
    words = [word for word in command(killed, workers=1)[3:] if word not in ("--out", killed.out)]
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DIE_AT_RENAME, killed.out, *words],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    deaths = int(ended.stdout)
    assert deaths >= 10
    for when in range(1, deaths + 1):
        config = nih_config(f"killed{when}", shard_size=100)
        make(config)
        assert hashes(Path(config.out)) == wanted, f"killed at rename {when}"


def test_sigkill_of_a_parallel_run_leaves_no_worker_and_costs_no_byte(tmp_path: Path, nih_config) -> None:
    write_nih(tmp_path / "big", patients=60, each=10)
    whole = nih_config("whole", src=str(tmp_path / "big"), shard_size=150, workers=2)
    make(whole)
    config = nih_config("killed", src=str(tmp_path / "big"), shard_size=150, workers=2)
    work = Path(config.out) / ".work"
    for chunks in (1, 4):
        process = subprocess.Popen(command(config, workers=2), cwd=ROOT, stderr=subprocess.DEVNULL)
        _wait_for(lambda: len(list(work.glob("t*"))) > chunks or process.poll() is not None)  # noqa: B023
        workers = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.kill()
        process.wait()
        _wait_for(lambda: not any(_alive(worker) for worker in workers))  # noqa: B023
    make(config)
    assert hashes(Path(config.out)) == hashes(Path(whole.out))


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _wait_for(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


def test_two_processes_never_make_one_set_at_a_time(nih_config) -> None:
    from shards.converters import plan
    from shards.writer import WORK, _lock, convert

    config = nih_config()
    convert(plan(nih_config(part="0/2")), nih_config(part="0/2"), say=lambda line: None)
    with _lock(Path(config.out) / WORK, "merge"), pytest.raises(InputError, match="another process"):
        make(config)
    make(config)


def test_a_file_too_large_for_the_disk_leaves_no_half_file_and_the_run_goes_on_later(nih_config) -> None:
    config = nih_config(size=64, shard_size=100)

    def limit() -> None:  # the kernel refuses to grow any file beyond this, as a full disk or a quota would
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    ended = subprocess.run(
        command(config, workers=1), cwd=ROOT, preexec_fn=limit, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert "no space left to write" in ended.stderr and len(ended.stderr.strip().splitlines()) == 1
    left = [path for path in Path(config.out).rglob("*") if path.is_file()]
    assert not [path.name for path in left if path.suffix in (".tar", ".parquet", ".tmp")]
    make(config)
    whole = nih_config("whole", size=64, shard_size=100)
    make(whole)
    assert hashes(Path(config.out)) == hashes(Path(whole.out))


@pytest.mark.skipif(os.geteuid() != 0, reason="root: a small file system is mounted")
def test_a_full_disk_leaves_no_half_file_under_a_final_name(tmp_path: Path, nih_config) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=120k", "tmpfs", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("mount: not allowed here")
    try:
        config = nih_config("disk/set", size=64)
        with pytest.raises(FailedError, match="no space left to write .*run the same command again"):
            make(config)
        for path in Path(config.out).glob("*.tar"):
            with tarfile.open(path) as tar:
                assert len(tar.getnames()) >= 2
        assert not (Path(config.out) / "dataset.json").exists()
        subprocess.run(["mount", "-o", "remount,size=10m", str(disk)], check=True)
        make(config)
        whole = nih_config("whole", size=64)
        make(whole)
        assert hashes(Path(config.out)) == hashes(Path(whole.out))
    finally:
        subprocess.run(["umount", str(disk)], check=False)


def _die(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_a_worker_killed_for_memory_is_an_error_and_no_hang() -> None:
    with pytest.raises(FailedError, match="a worker process died"):
        list(run_jobs([(_die, number) for number in range(8)], 2))


def test_jobs_found_while_results_come_in_are_done_too() -> None:
    todo = [1, 2, 3]

    class Growing:
        def __iter__(self):
            return self

        def __next__(self):
            if not todo:
                raise StopIteration
            return abs, todo.pop()

    for workers in (1, 2):
        todo[:], seen = [1, 2, 3], []
        for argument, result in run_jobs(Growing(), workers):
            seen.append(result)
            if argument == 1:
                todo.append(7)
        assert sorted(seen) == [1, 2, 3, 7]


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
