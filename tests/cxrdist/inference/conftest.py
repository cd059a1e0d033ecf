"""Drawn X-rays with boxes, a run fine-tuned on them and its network; shared by the tests of inference."""

from __future__ import annotations

from pathlib import Path

import pytest

from cxrdist.inference import network as networks
from jobs import cli
from shards.convert.config import NihConfig
from shards.phantom import write_nih
from tests.cxrdist.conftest import TINY

LABELS = ["cardiomegaly", "pleural_effusion", "infiltration"]


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn X-rays in NIH's layout, 1024 pixels being the frame of their boxes and 80 their size."""
    out = tmp_path_factory.mktemp("explain") / "nih"
    write_nih(out, n_patients=26, seed=1, size=80, workers=0)
    (out / "phantom.json").unlink()  # so that it passes for the published set, boxes included
    return out


@pytest.fixture(scope="session")
def shards_path(source: Path) -> Path:
    from shards.convert.engine import convert
    from shards.convert.registry import plan

    config = NihConfig(src=str(source), out=str(source.parent / "shards"), size=72, workers=1)
    convert(plan(config), config, say=lambda line: None)
    return source.parent / "shards"


@pytest.fixture(scope="session")
def run(shards_path: Path) -> Path:
    """A real, hardly trained fine-tuning."""
    out = shards_path.parent / "run"
    words = ["--shards", str(shards_path), "--out", str(out), "--arch", TINY, "--image_size", "48"]
    words += ["--labels", ",".join(LABELS), "--epochs", "1", "--min_steps", "3", "--n_boot", "0", "--device", "cpu"]
    assert cli.main(["finetune", *words]) == 0
    return out


@pytest.fixture(scope="session")
def network(run: Path) -> networks.Encoder:
    return networks.load(run, "cpu", classify=True)
