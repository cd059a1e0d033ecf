"""A quick fine-tuning trial, prepared or run to its end; shared by the tests of what trials make."""

from __future__ import annotations

from pathlib import Path

from cxrdist.finetune import identity
from cxrdist.finetune import trial as finetuning
from cxrdist.finetune.config import FinetuneConfig
from cxrdist.finetune.parse import from_plain
from results.run import Run
from tests.cxrdist.conftest import TINY

BASE = {"arch": "small_cnn", "image_size": 28, "epochs": 6, "min_steps": 30, "global_batch": 32, "n_boot": 20}
BASE |= {"threads": 1, "device": "cpu", "augment": {"preset": "none"}, "optim": {"lr": 0.003}}
LINEAR = {"mode": "linear", "arch": TINY, "image_size": 32, "n_boot": 0}


def trial(out: Path, shards: Path, **changes) -> tuple[FinetuneConfig, Run]:
    values = {**BASE, "shards": str(shards), "out": str(out), **changes}
    config = identity.resolve(from_plain(values, "test"))
    return config, identity.make_run(config)


def trained(out: Path, shards: Path, **changes) -> Run:
    config, run = trial(out, shards, **changes)
    finetuning.run_trial(config, run)
    return run


class StopAfter:
    """A StopRequest that fires when it has been asked often enough."""

    def __init__(self, steps: int):
        self.left = steps

    @property
    def requested(self) -> bool:
        self.left -= 1
        return self.left < 0
