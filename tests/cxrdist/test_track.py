"""`--track` is checked where a run is asked for, and is no part of what a run is."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from cxrdist.finetune import config as finetune
from cxrdist.pretrain import config as pretrain
from cxrdist.sweep import run as sweep
from cxrdist.sweep.config import SweepConfig


def test_an_unknown_tracker_is_refused_by_every_command_that_takes_one(tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    asked = [
        lambda: finetune.check(finetune.FinetuneConfig(shards="s", out=out, track="neptune")),
        lambda: pretrain.validate(pretrain.PretrainConfig(shards="s", out=out, track="mlfow")),
        lambda: sweep.run(SweepConfig(out=out, track="tensorboard")),
    ]
    for ask in asked:
        with pytest.raises(ValueError, match="is no tracker; there are mlflow, wandb") as refused:
            ask()
        assert getattr(refused.value, "exit_code", None) == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("module", [finetune, pretrain])
def test_where_numbers_are_sent_does_not_change_which_run_it_is(module) -> None:
    kind = finetune.FinetuneConfig if module is finetune else pretrain.PretrainConfig
    assert "track" in module.IGNORED_BY_SIGNATURE
    assert next(field for field in dataclasses.fields(kind) if field.name == "track").default is None
