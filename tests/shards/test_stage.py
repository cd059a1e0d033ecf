"""Staged copies are whole, checked, shared between processes, and never half."""

from __future__ import annotations

import functools
import http.server
import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from shards import InputError, ShardSet
from shards import stage as staging
from shards.card import card_bytes, read_card
from shards.errors import FailedError
from shards.stage import stage


@pytest.fixture
def folder(make_set, tmp_path: Path) -> Path:
    make_set(tmp_path / "set")
    return tmp_path / "set"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


class Web(http.server.ThreadingHTTPServer):
    """Serves a folder on this machine and counts what was asked for."""

    def __init__(self, folder: Path):
        self.asked: list[str] = []
        self.failing = 0  # so many of the next requests for a file's content fail
        outer = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                if outer.failing:
                    outer.failing -= 1
                    self.send_error(503)
                else:
                    super().do_GET()

            def log_message(self, *arguments) -> None:
                pass

        super().__init__(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def web(folder: Path) -> Iterator[Web]:
    server = Web(folder.parent)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def same_files(copy: Path, folder: Path) -> bool:
    names = {path.name for path in folder.iterdir()}
    found = {path.name for path in copy.iterdir() if not path.name.startswith(".")}
    return found == names and all((copy / name).read_bytes() == (folder / name).read_bytes() for name in names)


def test_none_reads_a_local_folder_where_it_is(folder: Path) -> None:
    assert stage(folder) == folder
    assert stage(f"file://{folder}") == folder


@pytest.mark.parametrize("mode", ["ram", "disk"])
def test_a_staged_copy_is_the_same_and_reads_the_same(folder: Path, cache: Path, mode: str) -> None:
    copy = stage(folder, mode, cache)
    assert copy != folder and same_files(copy, folder)
    staged = ShardSet(folder, "train", stage=mode, cache_dir=cache)
    assert staged.path == copy
    positions = np.arange(len(staged))
    assert torch.equal(staged.images(positions), ShardSet(folder, "train").images(positions))


def test_a_second_stage_copies_nothing(folder: Path, cache: Path, monkeypatch) -> None:
    copy = stage(folder, "disk", cache)
    monkeypatch.setattr(staging._Source, "copy", None)
    assert stage(folder, "disk", cache) == copy


def test_ram_goes_to_shared_memory_and_disk_to_the_jobs_own_folder(folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(staging, "_RAM", tmp_path / "shm")
    (tmp_path / "shm").mkdir()
    monkeypatch.setenv("SLURM_TMPDIR", str(tmp_path / "node"))
    (tmp_path / "node").mkdir()
    for mode, parent in (("ram", "shm"), ("disk", "node")):
        copy = stage(folder, mode)
        assert copy.parent == tmp_path / parent / f"cxrdist-{os.getuid()}"
        assert copy.parent.stat().st_mode & 0o077 == 0  # patients' images: for nobody else's eyes


def test_shared_memory_that_is_absent_is_said(folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(staging, "_RAM", tmp_path / "nowhere")
    with pytest.raises(InputError, match="stage ram needs.*--stage disk"):
        stage(folder, "ram")


def test_a_folder_that_somebody_else_made_is_not_used(folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SLURM_TMPDIR", str(tmp_path))
    (tmp_path / "theirs").mkdir()
    (tmp_path / f"cxrdist-{os.getuid()}").symlink_to(tmp_path / "theirs")
    with pytest.raises(InputError, match="belongs to somebody else"):
        stage(folder, "disk")


def test_http_is_fetched_once_and_checked(folder: Path, cache: Path, web: Web) -> None:
    shardset = ShardSet(f"{web.url}/set", "train", cache_dir=cache)
    assert same_files(shardset.path, folder)
    assert torch.equal(shardset.images(np.arange(5)), ShardSet(folder, "train").images(np.arange(5)))
    asked = len(web.asked)
    ShardSet(f"{web.url}/set/", "val", cache_dir=cache)
    assert {path.rsplit("/", 1)[1] for path in web.asked[asked:]} == {"dataset.json"}


def test_a_fetched_url_goes_to_the_users_cache_by_default(folder: Path, tmp_path: Path, web: Web, monkeypatch) -> None:
    monkeypatch.setenv("CXRDIST_CACHE", str(tmp_path / "mine"))
    assert stage(f"{web.url}/set").parent == tmp_path / "mine" / "shards"


def test_other_fsspec_addresses_work_too(folder: Path, cache: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for path in folder.iterdir():
        memory.pipe(f"/bucket/set/{path.name}", path.read_bytes())
    try:
        assert same_files(stage("memory://bucket/set", "none", cache), folder)
    finally:
        memory.rm("/bucket", recursive=True)


def test_a_passing_network_error_is_tried_again(cache: Path, folder: Path, web: Web, monkeypatch) -> None:
    monkeypatch.setattr(staging.time, "sleep", lambda seconds: None)
    web.failing = 2
    assert same_files(stage(f"{web.url}/set", "none", cache), folder)


def test_a_lasting_network_error_ends_in_one_line(cache: Path, web: Web, monkeypatch) -> None:
    monkeypatch.setattr(staging.time, "sleep", lambda seconds: None)
    web.failing = 10_000
    with pytest.raises(FailedError, match="dataset.json could not be read in 3 tries") as caught:
        stage(f"{web.url}/set", "none", cache)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("{web}/nothing", "nothing/dataset.json: .*is this the folder of a shard set"),
        ("{folder}/nothing", "nothing/dataset.json: .*is this the folder of a shard set"),
        ("gopher://host/set", "gopher"),
    ],
)
def test_an_address_without_a_shard_set_is_said(
    folder: Path, cache: Path, web: Web, address: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        stage(address.format(web=web.url, folder=folder), "disk", cache)


def test_an_unknown_mode_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="none, ram, disk, got 'tape'"):
        stage(folder, "tape")


@pytest.mark.parametrize("remote", [False, True])
def test_a_flipped_byte_is_found_and_the_file_not_kept(folder: Path, cache: Path, web: Web, remote: bool) -> None:
    tar = folder / "train-000002.tar"
    content = bytearray(tar.read_bytes())
    content[len(content) // 2] ^= 1
    tar.write_bytes(content)
    with pytest.raises(InputError, match="train-000002.tar does not have the sha256 on the card"):
        stage(f"{web.url}/set" if remote else folder, "disk", cache)
    (copy,) = cache.iterdir()
    assert not (copy / tar.name).exists() and not (copy / "dataset.json").exists()
    assert not list(copy.glob(".*.tmp"))
    content[len(content) // 2] ^= 1
    tar.write_bytes(content)
    assert same_files(stage(folder, "disk", cache), folder)


def test_a_copy_cut_short_later_is_made_whole_again(folder: Path, cache: Path) -> None:
    copy = stage(folder, "disk", cache)
    (copy / "train-000000.tar").write_bytes(b"cut")
    (copy / "test-000000.tar").unlink()
    assert stage(folder, "disk", cache) == copy
    assert same_files(copy, folder)


def test_a_changed_source_is_another_copy(folder: Path, cache: Path, make_set, tmp_path: Path) -> None:
    make_set(tmp_path / "other" / "set", seed=1)
    assert stage(folder, "disk", cache) != stage(tmp_path / "other" / "set", "disk", cache)


def test_too_little_room_is_said_before_anything_is_copied(folder: Path, cache: Path, monkeypatch) -> None:
    usage = staging.shutil.disk_usage(folder)
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda path: usage._replace(free=60_000_000))
    with pytest.raises(InputError, match="0.06 GB free, staging needs 0.07 GB.*--stage disk"):
        stage(folder, "ram", cache)
    (copy,) = cache.iterdir()
    assert [path.name for path in copy.iterdir()] == [".locks"]


def test_a_disk_that_fills_up_leaves_no_half_file(folder: Path, cache: Path, monkeypatch) -> None:
    monkeypatch.setattr(staging, "_PIECE", 1000)
    real = staging.write_bytes

    def write(path: Path, pieces) -> None:
        def until_full():
            for number, piece in enumerate(pieces):
                if number == 3:
                    raise OSError(28, "No space left on device")
                yield piece

        real(path, until_full() if path.suffix == ".tar" else pieces)

    monkeypatch.setattr(staging, "write_bytes", write)
    with pytest.raises(FailedError, match="no space left"):
        stage(folder, "disk", cache)
    (copy,) = cache.iterdir()
    assert not list(copy.glob("*.tar")) and not list(copy.glob(".*.tmp")) and not (copy / "dataset.json").exists()


@pytest.mark.parametrize("name", ["../outside.tar", "/etc/passwd", ".hidden", "a/b.tar"])
def test_a_card_that_names_files_elsewhere_is_not_trusted(folder: Path, cache: Path, name: str) -> None:
    card = read_card(folder)
    entries = ({**card.shards[0], "name": name}, *card.shards[1:])
    (folder / "dataset.json").write_bytes(card_bytes(card.__class__(**{**vars(card), "shards": entries})))
    with pytest.raises(InputError, match="outside its folder"):
        stage(folder, "disk", cache)
    assert not cache.exists()


STAGE = """
import sys
from shards.stage import stage
print(stage(sys.argv[1], "disk", sys.argv[2]))
"""


def test_many_processes_share_one_copy_and_fetch_each_file_once(folder: Path, cache: Path, web: Web) -> None:
    command = [sys.executable, "-c", STAGE, f"{web.url}/set", str(cache)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    printed = {process.communicate(timeout=120)[0].strip() for process in running}
    assert [process.returncode for process in running] == [0] * 6
    assert len(printed) == 1 and same_files(Path(printed.pop()), folder)
    fetched = [path for path in web.asked if not path.endswith("dataset.json")]
    assert sorted(fetched) == sorted(set(fetched))


def test_a_killed_process_leaves_a_copy_that_the_next_one_completes(folder: Path, cache: Path) -> None:
    slow = "import time; import shards.stage as s; s._PIECE = 512; real = s._Local.open\n" + (
        "def sleepy(self, name):\n    print(name, flush=True); time.sleep(0.4); return real(self, name)\n"
        "s._Local.open = sleepy\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", slow + STAGE, str(folder), str(cache)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(4):
        process.stdout.readline()
    process.kill()
    process.wait()
    process.stdout.close()
    (copy,) = cache.iterdir()
    assert not (copy / "dataset.json").exists()
    assert same_files(stage(folder, "disk", cache), folder) and stage(folder, "disk", cache) == copy


def test_s3_without_its_package_says_which_one(cache: Path) -> None:
    try:
        import s3fs  # noqa: F401  # type: ignore[import-not-found]
    except ImportError:
        with pytest.raises(InputError, match="s3:// needs another package.*s3fs"):
            stage("s3://bucket/set", "none", cache)
    else:
        pytest.skip("no s3fs: it is installed here")


FROM_S3 = """
import sys
from pathlib import Path
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
server.start()
import os
host, port = server.get_host_and_port()
os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{port}"
import s3fs
store = s3fs.S3FileSystem()
store.mkdir("bucket")
for path in Path(sys.argv[1]).iterdir():
    store.pipe(f"bucket/xrays/{path.name}", path.read_bytes())
from shards.stage import stage
print(stage("s3://bucket/xrays", "none", sys.argv[2]))
server.stop()
"""


def test_s3_is_fetched_like_any_other_address(folder: Path, cache: Path) -> None:
    for name in ("s3fs", "moto"):
        if importlib.util.find_spec(name) is None:
            pytest.skip("s3: no s3fs with moto, a local object store, here")
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
    command = [sys.executable, "-c", FROM_S3, str(folder), str(cache)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | keys, timeout=300)
    assert done.returncode == 0, done.stderr
    assert same_files(Path(done.stdout.splitlines()[-1]), folder)


def test_the_copy_says_nothing_of_where_it_came_from(folder: Path, cache: Path) -> None:
    copy = stage(folder, "disk", cache)
    assert json.loads((copy / "dataset.json").read_text()) == json.loads((folder / "dataset.json").read_text())
