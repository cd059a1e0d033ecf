"""A small shard set of drawn images, and runs made from it; shared by the tests of the learning."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs import cli

ROOT = Path(__file__).resolve().parents[2]
SIZE = 32
TINY = "test_resnet"
"""timm's own test network: a whole ResNet with four stages, 30 times quicker than resnet10t with its small stem. Order,
resuming and bookkeeping do not depend on the network; what does depend on it names a published one."""


def drawn(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Grey images (count, 28, 28) uint8 of a bright blob on noise, and labels (count, 1): is the blob large?"""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    y, x = np.mgrid[:28, :28]
    centre = rng.uniform(8, 20, (count, 2, 1, 1))
    radius = (2.5 + 3 * labels)[:, None, None]
    blob = ((x - centre[:, 0]) ** 2 + (y - centre[:, 1]) ** 2 < radius**2) * 120.0
    images = np.clip(rng.normal(70, 25, (count, 28, 28)) + blob, 0, 255)
    return images.astype(np.uint8), labels[:, None].astype(np.uint8)


@pytest.fixture(scope="session")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shard set of 150 / 40 / 40 drawn images in PneumoniaMNIST's layout, 28 pixels, in tars of 40."""
    folder = tmp_path_factory.mktemp("blobs")
    arrays: dict[str, Any] = {}
    for seed, (split, count) in enumerate((("train", 150), ("val", 40), ("test", 40))):
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = drawn(count, seed)
    np.savez(folder / "pneumoniamnist.npz", **arrays)
    words = ["shard", "medmnist", "--src", str(folder), "--out", str(folder / "shards"), "--shard_size", "40"]
    assert cli.main([*words, "--workers", "1"]) == 0
    return folder / "shards"


@pytest.fixture
def make_run(blobs: Path, tmp_path: Path) -> Callable[..., Any]:
    """Make a run folder of a tiny pretraining; settings given by name replace those here."""
    from cxrdist.pretrain.config import PretrainConfig, from_dict
    from cxrdist.pretrain.run_folder import create_run

    def make(name: str = "run", **changes: Any) -> Any:
        values: dict[str, Any] = {
            "shards": str(blobs), "out": str(tmp_path / name), "arch": TINY, "image_size": SIZE,
            "global_batch": 16, "steps": 10, "device": "cpu", "precision": "float32", "workers": 0,
            "tensorboard": False, "watch": {"every_epochs": 0}, "checkpoint": {"every_steps": 4},
            "log_every": 1, "head": {"dim": 16, "hidden": 32}, "optim": {"lr": 0.1},
        }  # fmt: skip
        for key, value in changes.items():
            values[key] = {**values[key], **value} if isinstance(value, dict) and key in values else value
        return create_run(from_dict(PretrainConfig, values), command=["test"])

    return make


def weights(run: Any) -> dict[str, Any]:
    import safetensors.torch

    return safetensors.torch.load_file(run.encoder)


def same(one: Any, other: Any) -> bool:
    """Whether two finished runs have bit-identical encoders and saw the same samples in the same order."""
    import torch

    a, b = weights(one), weights(other)
    equal = a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    return equal and one.read_done()["order_sha256"] == other.read_done()["order_sha256"]


def start_worker(run: Any, *, nproc: int = 1, env: dict[str, str] | None = None, module: str = "cxrdist.pretrain"):
    """Start a run's ranks under the launcher, as `cxrdist pretrain` does; returns the launcher's process."""
    code = (
        f"import sys; from slurm.launch import local; sys.exit(local({module!r}, [{str(run.path)!r}], nproc={nproc}))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def train(run: Any, *, nproc: int) -> None:
    """Train to the end on ranks that no launcher started."""
    from cxrdist.pretrain import loop
    from tests.cxrdist.forked import run_forked

    code, errors = run_forked(
        loop.run_worker, [str(run.path)], nproc=nproc, log=run.path.with_name(f"{run.path.name}.err")
    )
    assert code == 0, errors[-3000:]


def run_ranks(run: Any, *, nproc: int = 1, env: dict[str, str] | None = None, timeout: float = 540) -> tuple[int, str]:
    """Run to the end under the launcher; returns exit code and stderr."""
    process = start_worker(run, nproc=nproc, env=env)
    try:
        _, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.terminate()  # the launcher passes it on; a run that hangs is ended and does not disturb other tests
        process.communicate(timeout=60)
        raise
    return process.returncode, errors
