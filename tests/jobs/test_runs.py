"""`cxrdist runs`: one line a run, from the small files of run folders."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs import cli
from results.run import Run


def make(folder: Path, *, job: str = "finetune", age_minutes: float = 0.0, **settings: object) -> Run:
    """A run that has logged two lines and is not done."""
    config = {"shards": "/data/nih", "init": "scratch", "arch": "resnet18", "mode": "full", "seed": 0}
    config |= {"label_fraction": 0.1, "epochs": 4, "optim": {"lr": 0.001}} | settings
    run = Run.create(folder, job=job, config=config, signature=folder.name, shards={"/data/nih": "ab" * 32})
    run.log(10, epoch=1.0, loss=0.5)
    run.log(20, epoch=2.0, val_auroc=0.71)
    moment = time.time() - 60 * age_minutes
    os.utime(run.metrics_log, (moment, moment))
    return run


@pytest.fixture
def study(tmp_path):
    """A done, a running and a silent fine-tuning, a failed cell of a sweep, and a pretraining that waits."""
    top = tmp_path / "study"
    done = make(top / "sweep" / "cells" / "aaa", init="imagenet", seed=1)
    done.finish(val_auroc=0.8, test_auroc=0.75, steps=40, gpu_seconds=7200.0, wall_seconds=7300.0)
    make(top / "sweep" / "cells" / "bbb", optim={"lr": 0.01})
    make(top / "sweep" / "cells" / "ccc", age_minutes=45.0, label_fraction=1.0)
    make(top / "sweep" / "cells" / "ddd")
    (top / "sweep" / "failures").mkdir()
    (top / "sweep" / "failures" / "ddd.json").write_text("[]")
    waits = Run.create(
        top / "simclr", job="pretrain", config={"shards": "/data/nih", "method": "simclr"}, signature="eee"
    )
    waits.submission.mkdir()
    return top


def listed(capsys, *words: str) -> list[dict]:
    assert cli.main(["runs", *words, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_every_run_is_one_line_with_its_settings_and_state(study, capsys):
    facts = {fact["run"]: fact for fact in listed(capsys, str(study))}
    states = {Path(name).name: fact["state"] for name, fact in facts.items()}
    assert states == {"aaa": "done", "bbb": "running", "ccc": "silent", "ddd": "failed", "simclr": "waiting"}
    done = facts["sweep/cells/aaa"]
    assert (done["kind"], done["dataset"], done["init"], done["mode"]) == ("finetune", "nih", "imagenet", "full")
    assert (done["label_fraction"], done["seed"], done["step"]) == (0.1, 1, 40)
    assert (done["val_auroc"], done["test_auroc"], done["gpu_hours"]) == (0.8, 0.75, 2.0)
    runs = facts["sweep/cells/bbb"]
    assert (runs["step"], runs["steps"], runs["val_auroc"], runs["test_auroc"]) == (20, 40, 0.71, None)
    assert 2600 < facts["sweep/cells/ccc"]["age_seconds"] < 2800


def test_the_table_marks_runs_that_stopped_reporting_and_counts_states(study, capsys):
    assert cli.main(["runs", str(study)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "silent !" in next(line for line in lines if "/ccc " in line)
    assert "running  " in next(line for line in lines if "/bbb " in line)
    assert lines[-1] == "5 runs: 1 done, 1 failed, 1 running, 1 silent, 1 waiting"


def test_a_pretraining_on_several_sets_is_listed_by_their_names(tmp_path, capsys):
    make(tmp_path / "aaa", job="pretrain", shards=["/data/nih", "/data/chexpert"], label_fraction=None)
    (fact,) = listed(capsys, str(tmp_path))
    assert (fact["state"], fact["dataset"], fact["arch"]) == ("running", "nih+chexpert", "resnet18")


def test_a_test_auroc_by_study_is_told_from_those_by_image(study, capsys):
    cli.main(["runs", str(study)])
    assert "scored by" not in capsys.readouterr().out
    make(study / "fff", level="study").finish(test_auroc=0.9)
    cli.main(["runs", str(study)])
    head, *lines = capsys.readouterr().out.splitlines()
    place = head.index("scored by")
    assert next(line for line in lines if line.startswith("fff"))[place:].startswith("study ")
    assert [Path(fact["run"]).name for fact in listed(capsys, str(study), "--where", "level=study")] == ["fff"]


def test_silent_after_says_how_long_is_too_long(study, capsys):
    states = {Path(fact["run"]).name: fact["state"] for fact in listed(capsys, str(study), "--silent_after", "60")}
    assert states["ccc"] == "running"


def test_filters_take_columns_and_keys_of_the_configuration(study, capsys):
    def names(where: str) -> list[str]:
        return [Path(fact["run"]).name for fact in listed(capsys, str(study), "--where", where)]

    assert names("state=silent,failed") == ["ccc", "ddd"]
    assert names("optim.lr=1e-2") == ["bbb"]
    assert names("kind=finetune label_fraction=0.1 init=scratch") == ["bbb", "ddd"]
    assert names("test_auroc=none kind=pretrain") == ["simclr"]


def test_runs_sort_by_a_column_and_those_without_a_value_come_last(study, capsys):
    found = listed(capsys, str(study), "--sort=-val_auroc", "--where", "kind=finetune")
    assert [fact["val_auroc"] for fact in found] == [0.8, 0.71, 0.71, 0.71]
    found = listed(capsys, str(study), "--sort", "test_auroc")
    assert [fact["test_auroc"] for fact in found] == [0.75, None, None, None, None]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "nowhere: no such folder"),
        ([""], "no such folder"),
        (["--sort", "auroc"], "--sort auroc: no such column; there are run, kind"),
        (["--where", "auroc"], "is not column=value"),
        (["--where", "colour=red"], "no run has colour"),
        (["--silent_after", "0"], "above 0"),
        (["--silent_after", "nan"], "above 0"),
    ],
)
def test_what_cannot_be_listed_is_refused_in_one_line(study, monkeypatch, capsys, words, said):
    monkeypatch.chdir(study)
    assert cli.main(["runs", *words]) == 2
    out, error = capsys.readouterr()
    assert out == "" and said in error and error.count("\n") == 1


def test_a_damaged_run_is_named_and_hides_no_other(study, capsys):
    (study / "sweep" / "cells" / "bbb" / "run.json").write_text("{")
    facts = {Path(fact["run"]).name: fact for fact in listed(capsys, str(study))}
    assert facts["bbb"]["state"] == "damaged" and "run.json is damaged" in facts["bbb"]["note"]
    assert len(facts) == 5


def test_a_folder_without_runs_says_so(tmp_path, capsys):
    assert cli.main(["runs", str(tmp_path)]) == 0
    assert capsys.readouterr().err == f"no runs below {tmp_path}\n"


def test_listing_runs_imports_neither_torch_nor_arrow(study):
    code = (
        "import sys; from jobs import cli; assert cli.main(['runs', sys.argv[1]]) == 0;"
        "print([name for name in ('torch', 'ray', 'pyarrow', 'numpy', 'pandas') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code, str(study)], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"
