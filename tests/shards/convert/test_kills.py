"""Kills, full disks and dead workers cost time and no byte."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import psutil
import pytest

from shards import FailedError, InputError
from shards.processes import run_jobs
from tests.shards.convert.conftest import hashes, make, write_nih

ROOT = Path(__file__).resolve().parents[3]


def command(config, **more) -> list[str]:
    words = {"size": config.size, "shard_size": config.shard_size, "max_rejects": config.max_rejects, **more}
    options = [word for name, value in words.items() for word in (f"--{name}", str(value))]
    return [sys.executable, "-m", "jobs.cli", "shard", "nih", "--src", config.src, "--out", config.out, *options]


# One child per rename: it ends without any clean-up at the N-th time a file gets its final name, just before it for
# even N, just after it for odd N. The last child ends well. Prints the number of deaths. What a child would import by
# itself, ten times as long as it works, is imported before.
DIE_AT_RENAME = """
import os, sys
import cv2, jsonargparse, kornia_rs, pandas, pyarrow, pyarrow.parquet, simplejpeg
import jobs.shard, shards.convert.engine, shards.convert.merge, shards.convert.nih, shards.phantom.publish
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
    from shards.convert.engine import WORK, convert
    from shards.convert.registry import plan
    from shards.locks import locked

    config = nih_config()
    convert(plan(nih_config(part="0/2")), nih_config(part="0/2"), say=lambda line: None)
    with locked(Path(config.out) / WORK / "merge.lock"), pytest.raises(InputError, match="another process"):
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
    left = [path for path in Path(config.out).rglob("*") if path.is_file() and not path.name.startswith("planned-")]
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
