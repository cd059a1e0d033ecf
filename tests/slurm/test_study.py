"""A whole study as one submission on the real cluster: shards of two sources, two encoders, a sweep, one table."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from conftest import wait_until

import results
from jobs import cli
from results.run import Run
from slurm import client, jobs_file

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(1800)]

TINY = "--arch test_resnet --image_size 32 --global_batch 16 --device cpu --precision float32 --watch.every_epochs 1000"
CHAIN = """
[[stage]]
name = "nih"
run = "shard nih --src src_nih --out shards/nih --size 48 --shard_size 20"
parts = 2

[[stage]]
name = "chexpert"
run = "shard chexpert --src src_chexpert --out shards/chexpert --size 48"

[[stage]]
name = "simclr-nih"
needs = ["nih"]
run = "pretrain --shards shards/nih --out runs/nih {tiny} --steps 8"

[[stage]]
name = "simclr-chexpert"
needs = ["chexpert"]
nodes = 2
run = "pretrain --shards shards/chexpert --out runs/chexpert {tiny} --steps 40 --log_every 1"

[[stage]]
name = "sweep"
needs = ["simclr-nih", "simclr-chexpert"]
nodes = 2
run = "sweep --config sweep.toml --out runs/sweep"

[[stage]]
name = "collect"
needs = ["sweep"]
run = "collect runs/sweep --out study.parquet"
"""
SWEEP = """
[axes]
init = ["scratch", "runs/nih", "runs/chexpert"]
shards = ["shards/nih"]

[finetune]
mode = "linear"
epochs = 1
global_batch = 16
device = "cpu"
"""


def shown(capsys) -> dict[str, str]:
    """What `cxrdist status` or a submission printed: first word -> rest of its line."""
    lines = [line for line in capsys.readouterr().out.splitlines() if line and not line.startswith(" ")]
    return {line.split()[0].rstrip(":"): line.partition(" ")[2].strip() for line in lines}


def test_study_whose_stage_is_cancelled_in_the_middle_goes_on_with_what_is_missing(
    cluster, tmp_path, capsys, monkeypatch, secrets
):
    monkeypatch.chdir(tmp_path)
    for style in ("nih", "chexpert"):
        words = f"shard phantom --style {style} --out src_{style} --images 60 --size 48 --layout_only true"
        assert cli.main(words.split()) == 0
    Path("chain.toml").write_text(CHAIN.format(tiny=TINY))
    Path("sweep.toml").write_text(SWEEP)
    submit = "submit chain chain.toml --time 10".split()
    assert cli.main(submit) == 0
    first = shown(capsys)
    assert list(first) == ["nih", "chexpert", "simclr-nih", "simclr-chexpert", "sweep", "collect"]
    assert all(line.startswith("queued as job ") for line in first.values())

    run = Run(tmp_path / "runs/chexpert")
    wait_until(lambda: len(run.read_log()) >= 4, 300, "the fourth step")
    assert cli.main(["cancel", "runs/chexpert"]) == 0
    wait_until(lambda: Run(tmp_path / "runs/nih").is_done, 300, "the other encoder")
    last = jobs_file.job_ids(tmp_path / "study.parquet.job/submission")[-1]
    wait_until(lambda: not client.job(last).active, 60, "the end of what depended on it")
    capsys.readouterr()
    assert cli.main(["status", "chain.toml"]) == 1
    states = shown(capsys)
    assert states["nih"].startswith("done") and states["simclr-nih"].startswith("done")
    assert states["simclr-chexpert"].startswith("CANCELLED") and states["collect"].startswith("CANCELLED")

    assert cli.main(submit) == 0
    again = shown(capsys)
    assert [again[name] for name in ("nih", "chexpert", "simclr-nih")] == ["complete"] * 3
    assert all(again[name].startswith("queued as job ") for name in ("simclr-chexpert", "sweep", "collect"))

    # A stage that is preempted is requeued, and what waits for it goes on waiting.
    before, stage = run.read_log()[-1]["step"], jobs_file.job_ids(run.submission)[-1]
    wait_until(lambda: run.read_log()[-1]["step"] > before + 3, 300, "new steps")
    subprocess.run(["scancel", "--signal=USR2", stage], check=True)
    last = jobs_file.job_ids(tmp_path / "study.parquet.job/submission")[-1]
    wait_until(lambda: client.job(stage).restarts == 1 and client.job(stage).state == "PENDING", 60, "its requeue")
    assert client.job(last).state == "PENDING"
    wait_until(lambda: not client.job(last).active, 600, "the whole study", 1.0)
    assert client.job(last).state == "COMPLETED"
    assert cli.main(["status", "chain.toml"]) == 0
    assert {line.split()[0] for line in shown(capsys).values()} == {"done"}
    frame = results.load("study.parquet")
    assert set(frame["init"]) == {"scratch", "simclr:nih", "simclr:chexpert"}
    assert [path for path in (tmp_path / "runs").rglob("*") if path.stat().st_mode & 0o077 and path.is_dir()] == []
    assert cli.main(submit) == 0
    assert set(shown(capsys).values()) == {"complete"}
