"""A file system without a free block under every command that writes: one line, and nothing is lost."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from jobs import cli
from tests.cxrdist import findings

SMALL = "--arch test_resnet --image_size 32 --device cpu --precision float32 --workers 0"
FITS = f"{SMALL} --epochs 1 --global_batch 8"
COMMANDS = {
    "shard": "shard phantom --out x --patients 3 --size 32 --workers 0",
    "pretrain": f"pretrain --shards {{made}}/set --out x {SMALL} --global_batch 8 --steps 2 --watch.every_epochs 0",
    "finetune": f"finetune --shards {{made}}/set --out x {FITS} --n_boot 0",
    "evaluate": "evaluate run --shards {made}/set --device cpu",
    "collect": "collect run --out x.parquet",
    "table": "table metrics {made}/results.parquet --out x.md",
    "plot": "plot label-efficiency {made}/results.parquet --out x.png",
    "report": "report {made}/results.parquet --out x",
    "methods": "methods {made}/run --out x.md --bib x.bib",
    "ensemble": "ensemble {made}/run {made}/run2 --out x",
    "embed": "embed {made}/run --shards {made}/set --out x.parquet --device cpu",
    "explain": "explain {made}/run --shards {made}/set --out x --count 1 --device cpu",
    "explore": "explore {made}/run --shards {made}/set --out x.html --device cpu",
    "predict": "predict {made}/run {made}/image.png --out x.csv --device cpu",
    "export": "export {made}/run --to pth --out x.pth",
    "export-hf": "export {made}/run --to hf --out x",
    "verify": "verify {made}/set --against {made}/other --out x.csv --workers 1",
}
"""{made} holds the inputs; the working folder, with a copy of `run`, is on the disk that fills."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shard set, two trained networks, their results and an image."""
    folder = tmp_path_factory.mktemp("made")
    findings.make(folder, name="set")
    findings.make(folder, name="other", seed=1)
    for run, mode in (("run", "full"), ("run2", "linear")):
        words = f"finetune --shards {folder}/set --out {folder}/{run} {FITS} --mode {mode} --n_boot 0"
        assert cli.main(words.split()) == 0
    assert cli.main(f"collect {folder}/run {folder}/run2 --out {folder}/results.parquet".split()) == 0
    cv2.imwrite(str(folder / "image.png"), np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8))
    return folder


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int | None], None]]:
    """The working folder on a file system of its own; calls leave so many bytes free on it (None: all of it)."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("a file system of one's own needs root on Linux")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a file system of one's own cannot be mounted here: {mounted.stderr.strip()}")
    monkeypatch.chdir(folder)
    ballast = tmp_path / "disk" / "ballast"

    def leave(free: int | None) -> None:
        ballast.unlink(missing_ok=True)
        if free is None:
            return
        block = os.statvfs(folder).f_bsize
        blocks = os.statvfs(folder).f_bavail - -(-free // block)
        with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
            os.posix_fallocate(file.fileno(), 0, max(blocks, 1) * block)

    try:
        yield leave
    finally:
        monkeypatch.undo()
        subprocess.run(["umount", "-l", folder], check=True)


def content(folder: Path) -> dict[str, str]:
    """Hash of every file but the ballast."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "ballast"
    }


def refused(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    """A full disk is one line of the command."""
    capfd.readouterr()
    code = cli.main(words)
    shown = capfd.readouterr().err
    assert code in (1, 2), shown
    last = shown.strip().splitlines()[-1]
    assert last.startswith("cxrdist: ") and "space" in last.lower(), shown
    assert "Traceback" not in shown and "bug in cxrdist" not in shown, shown


LONG = ("pretrain", "report")
"""Commands that start further processes, or draw every figure."""


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in COMMANDS])
def test_a_full_disk_is_one_line_loses_nothing_and_the_same_command_works_with_room(name, made, disk, capfd) -> None:
    subprocess.run(["cp", "-a", made / "run", "run"], check=True)
    words = shlex.split(COMMANDS[name].format(made=made))
    before = content(Path("run"))
    disk(0)
    refused(words, capfd)
    after = content(Path("run"))
    assert {path: after[path] for path in before} == before
    disk(None)
    assert cli.main(words) == 0, capfd.readouterr().err
    assert cli.main(words) == 0, "and again"


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in (*LONG, "evaluate")])  # evaluate adds a row
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_disk_that_fills_half_way_is_one_line_and_leaves_nothing_that_is_taken_for_whole(
    name, share, made, disk, capfd
) -> None:
    subprocess.run(["cp", "-a", made / "run", "run"], check=True)
    words = shlex.split(COMMANDS[name].format(made=made))
    start = os.statvfs(".").f_bavail
    assert cli.main(words) == 0
    block = os.statvfs(".").f_bsize
    used = (start - os.statvfs(".").f_bavail) * block
    made_here = {path for path in content(Path(".")) if not path.startswith("run/")}
    for entry in Path(".").iterdir():
        subprocess.run(["rm", "-rf", entry], check=True)
    subprocess.run(["cp", "-a", made / "run", "run"], check=True)
    disk(min(int(share * used), used - block))
    refused(words, capfd)
    disk(None)
    assert cli.main(words) == 0, capfd.readouterr().err
    assert {path for path in content(Path(".")) if not path.startswith("run/")} == made_here
