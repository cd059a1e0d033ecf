"""A stage of a chain is complete when what lies there was made with its settings; else it is refused or made again."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

import pytest

from jobs import _tasks, cli
from results.run import Run
from tests.cxrdist import findings

AT = _tasks.where({})
SMALL = "--arch resnet10t --image_size 32 --device cpu"


def complete(text: str) -> bool:
    return _tasks.work(shlex.split(text), AT, create=False).complete


def refused(text: str) -> str:
    with pytest.raises(ValueError, match=r"holds another (run|shard set)") as caught:
        complete(text)
    assert caught.value.exit_code == 2  # pyright: ignore[reportAttributeAccessIssue]
    return str(caught.value)


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return findings.make(tmp_path_factory.mktemp("stages"), name="here")


def test_generated_sets_compare_what_they_were_drawn_with(tmp_path):
    made = f"shard phantom --out {tmp_path}/set --patients 4 --size 32 --seed 3"
    assert not complete(made)
    assert cli.main([*shlex.split(made), "--workers", "0"]) == 0
    assert complete(made) and complete(f"{made} --workers 2")
    for change in ("--patients 5", "--seed 4", "--style chexpert"):
        assert "phantom" in refused(f"{made} {change}")
    assert "size 32, not 48" in refused(f"{made} --size 48")
    assert refused(f"shard nih --src {tmp_path} --out {tmp_path}/set --size 32"), "drawn, not converted"


def test_a_conversion_of_another_kind_is_not_taken_for_this_one(shards):
    """Each setting of `medmnist` is one of `csv` too, and csv has more."""
    assert refused(f"shard medmnist --src x.npz --out {shards} --size 32 --image_format jpg")
    same = (
        f"shard csv --src x --out {shards} --table table.csv --name here --patient_column patient --split_column split"
    )
    assert complete(f"{same} --size 32")
    assert "split_column" in refused(f"{same} --size 32 --split_column null")


@pytest.mark.parametrize("job", ["pretrain", "finetune"])
def test_runs_compare_their_settings_and_their_data(job, shards, tmp_path):
    from cxrdist.pretrain.run_folder import create_run

    place = shutil.copytree(shards, tmp_path / "place")
    made = f"{job} --shards {place} --out {tmp_path}/run {SMALL} --global_batch 16"
    assert not complete(made)
    if job == "pretrain":
        create_run(cli.parse(job, shlex.split(made)[1:])).finish()
    else:
        _tasks._create_trial(cli.parse(job, shlex.split(made)[1:]))
        Run(tmp_path / "run").finish()
    assert complete(made) and complete(f"{made} --workers 3")
    assert "seed is 0 there, 7 here" in refused(f"{made} --seed 7")
    assert "epochs" in refused(f"{made} --epochs 3")
    shutil.rmtree(place)
    assert complete(made), "a run that is done needs its data no more"
    assert "seed is 0 there, 7 here" in refused(f"{made} --seed 7")
    findings.make(tmp_path / "other", name="here", seed=4)
    os.rename(tmp_path / "other" / "here", place)
    assert "of other data" in refused(made)


def test_a_table_that_another_command_wrote_over_is_made_again(tmp_path):
    table = tmp_path / "table.md"
    first = f"table label-efficiency results.parquet --out {table}"
    second = f"{first} --digits 2"

    def ran(words: str, moment: int) -> None:
        """What the job of a stage leaves behind: the table, then its mark."""
        work = _tasks.work(shlex.split(words), AT, create=False)
        mark = Path(str(work.tasks[0].mark))
        mark.parent.mkdir(parents=True, exist_ok=True)
        for path in (table, mark):
            path.write_text(words)
            os.utime(path, ns=(moment, moment))

    assert not complete(first)
    ran(first, 1)
    assert complete(first) and not complete(second)
    ran(second, 2)
    assert complete(second) and not complete(first), "the table is the second command's now"
    table.unlink()
    assert not complete(second)
