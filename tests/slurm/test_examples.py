"""The hand-written sbatch files do what they say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import wait_until

from results.run import Run
from slurm import client

pytestmark = pytest.mark.slurm

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = "--arch test_resnet --image_size 32 --global_batch 16 --device cpu --steps 20 --log_every 1"
SMALL += " --watch.every_epochs 999"


def sbatch(name: str, folder: Path, **variables: object) -> str:
    values = {"VENV": Path(sys.prefix), **variables}
    given = [f"{key}={value}" for key, value in values.items()]
    words = ["sbatch", "--gpus-per-node=0", "--cpus-per-task=2", "--time=10", EXAMPLES / name]
    done = subprocess.run(["env", *given, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.split()[-1]


@pytest.mark.parametrize(
    "name", ["pretrain_one_node.sbatch", pytest.param("pretrain_many_nodes.sbatch", marks=pytest.mark.slow)]
)
def test_pretraining_by_hand_is_stopped_requeued_and_completed(cluster, shards, tmp_path, name):
    run = Run(tmp_path / "run")
    job_id = sbatch(name, tmp_path, RUN=run.path, SHARDS=shards, NPROC=1, OPTIONS=SMALL)
    wait_until(lambda: len(run.read_log()) >= 3, 180, "the third step")
    subprocess.run(["scancel", "--signal=USR2", job_id], check=True)
    wait_until(lambda: not client.job(job_id).active, 240, f"the end of job {job_id}", 0.5)
    log = (tmp_path / f"simclr-{job_id}.log").read_text()
    assert client.job(job_id).state == "COMPLETED" and run.is_done, log
    assert "stopped at step" in log and "continues at step" in log
    steps = [json.loads(line)["step"] for line in run.metrics_log.read_text().splitlines() if '"images_per_s"' in line]
    assert steps == list(range(1, 21))


@pytest.mark.slow
def test_sweep_by_hand_uses_ray_on_both_nodes(cluster, shards, tmp_path):
    (tmp_path / "spec.toml").write_text(f"""
[axes]
seed = [0, 1]

[finetune]
shards = "{shards}"
arch = "small_cnn"
image_size = 28
epochs = 1
global_batch = 16
device = "cpu"
""")
    job_id = sbatch("sweep.sbatch", tmp_path, OUT=tmp_path / "sweep", SPEC=tmp_path / "spec.toml")
    wait_until(lambda: not client.job(job_id).active, 300, f"the end of job {job_id}", 0.5)
    log = (tmp_path / f"sweep-{job_id}.log").read_text()
    assert client.job(job_id).state == "COMPLETED", log
    assert len(list((tmp_path / "sweep").glob("cells/*/done.json"))) == 2
