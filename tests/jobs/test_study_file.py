"""A study file: values that are filled in, names that mean nothing refused, and what its folder was begun with."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from jobs import cli
from jobs._study import file
from jobs._study.folder import StudyFolder
from jobs._study.report import words_of
from jobs._study.standing import _identities, look
from jobs.study import _text_at
from slurm import client
from slurm.errors import InputError

TEXT = """
title = "A study"
[set]
epochs = 3
fractions = [0.1, 1.0]
arch = "resnet10t"
fast = true
mean = "null"
data.about = "folder of the pictures"
[spec.grid.finetune]
epochs = "{set-epochs}"
arch = "{set-arch}"
init_mean = "{set-mean}"
[spec.grid.axes]
label_fraction = "{set-fractions}"
shards = ["{out}/shards"]
"optim.lr" = [2.0, "{set-fractions}"]
[[stage]]
name = "grid"
needs = ["shards"]
run = "sweep --config {spec-grid} --out {out}/grid"
[[stage]]
name = "shards"
run = "shard phantom --out {out}/shards --seed {set-epochs} --workers 0"
[[stage]]
name = "look"
run = "verify {set-data}"
"""


def written(folder: Path, text: str = TEXT) -> Path:
    path = folder / "study.toml"
    path.write_text(text)
    return path


def test_values_keep_their_kind_in_specs_and_become_words_in_commands(tmp_path):
    study = file.load(written(tmp_path), {"data": "my pictures", "fractions": "[0.5]", "epochs": "7"})
    known = study.known("OUT")
    assert file.fill_value(study.specs["grid"], known) == {
        "finetune": {"epochs": 7, "arch": "resnet10t"},
        "axes": {"label_fraction": [0.5], "shards": ["OUT/shards"], "optim.lr": [2.0, 0.5]},
    }
    given = file.load(tmp_path / "study.toml", {"data": "x", "mean": "0.5"})
    assert file.fill_value(given.specs["grid"], given.known("OUT"))["finetune"]["init_mean"] == 0.5
    words = {stage.name: stage.words for stage in file.fill_stages(study, known)}
    assert words["look"] == ("verify", "my pictures"), "a value with a blank stays one word"
    assert words["grid"] == ("sweep", "--config", "OUT/specs/grid.toml", "--out", "OUT/grid")
    assert "7" in words["shards"]


@pytest.mark.parametrize(
    ("change", "sets", "says"),
    [
        (("{set-epochs}", "{set-epoch}"), {"data": "x"}, "{set-epoch} stands for nothing (did you mean set-epochs?)"),
        (("{spec-grid}", "{spec-gird}"), {"data": "x"}, "stage grid: {spec-gird} stands for nothing"),
        (("", ""), {"dta": "x"}, "--set dta: "),
        (("", ""), {"dta": "x"}, "(did you mean data?)"),
        (("", ""), {}, "needs --set data=... (folder of the pictures)"),
        (("", ""), {"data": " "}, "--set data= is empty"),
        (("", ""), {"data": "x", "epochs": "many"}, "--set epochs=many: must be a whole number, as 3 is"),
        (("", ""), {"data": "x", "epochs": "2.5"}, "must be a whole number"),
        (("", ""), {"data": "x", "fractions": "0.1"}, "must be a list"),
        (("", ""), {"data": "x", "fractions": "[0.1, null]"}, "must be a list"),
        (("", ""), {"data": os.fsdecode(b"\xff")}, "--set data= is empty"),
        (("", ""), {"data": "x", "fast": "yes"}, "must be true or false"),
        (('title = "A study"', 'titel = "A study"'), {"data": "x"}, "unknown key 'titel' (did you mean title?)"),
        (('title = "A study"', "title = 5"), {"data": "x"}, "title must be text"),
        (('title = "A study"', 'show = "x"'), {"data": "x"}, "show must be a list of texts"),
        (('title = "A study"', 'report = "\'"'), {"data": "x"}, "No closing quotation"),
        (('data.about = "folder', 'data.abuot = "folder'), {"data": "x"}, "set.data: unknown key 'abuot'"),
        (("epochs = 3", "epochs = 2020-01-01"), {"data": "x"}, "set.epochs: its value must be text, a number"),
        (('needs = ["shards"]', 'needs = ["shard"]'), {"data": "x"}, "(did you mean shards?)"),
        (('needs = ["shards"]', 'need = ["shards"]'), {"data": "x"}, "unknown key 'need' (did you mean needs?)"),
        (('name = "look"', 'name = "a/b"'), {"data": "x"}, "letters, digits and -_. only"),
        (('name = "look"', 'name = ".."'), {"data": "x"}, "the first not a dot"),
        (('name = "look"', 'name = "look"\nneeds = ["look"]'), {"data": "x"}, "need each other in a circle"),
        (("[set]", "[set"), {"data": "x"}, "not TOML"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_name(tmp_path, change, sets, says):
    with pytest.raises(InputError) as caught:
        file.load(written(tmp_path, TEXT.replace(*change)), sets)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("run study.toml", "the following arguments are required: --out"),
        ("run study.toml --out o --set data", "--set data: give it as NAME=VALUE"),
        ("run study.toml --out o --set data=a data=b", "--set data is given twice"),
        ("run study.toml --out study.toml --set data=a", "study.toml is a file, not a folder"),
        ("run other.toml --out .", "holds something else already (other.toml)"),
        ("run study.toml --out o --set data=a --nodes 2", "--nodes is of SLURM jobs"),
        ("run study.toml --out o --set data=a --profile nowhere", "nowhere: not one of gpu, local"),
        ("run nowhere.toml --out o", "nowhere.toml: no such file"),
        ("run dmeo --out o", "did you mean demo?"),
        ("rum study.toml --out o", "did you mean run?"),
        ("status o", "o is not the folder of a study"),
        ("report .", ". is not the folder of a study"),
    ],
)
def test_an_unusable_request_is_one_line_and_nothing_is_written(tmp_path, monkeypatch, capsys, words, says):
    monkeypatch.chdir(tmp_path)
    written(tmp_path)
    Path("other.toml").write_text('[[stage]]\nname = "a"\nrun = "verify nowhere"\n')
    assert cli.main(["study", *words.split()]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.toml", "study.toml"]
    assert Path("study.toml").read_text() == TEXT


def test_a_folder_that_cannot_be_written_is_refused_before_anything_runs(tmp_path, monkeypatch, capsys):
    study = written(tmp_path)
    place = tmp_path / "closed"
    place.mkdir()
    real = os.access  # as root every folder can be written
    monkeypatch.setattr("os.access", lambda path, mode, **more: path != place and real(path, mode, **more))
    assert cli.main(["study", "run", str(study), "--out", str(place), "--set", "data=x"]) == 2
    assert "Permission denied; choose another --out" in capsys.readouterr().err
    assert not any(place.iterdir())


def test_a_stage_that_cannot_run_is_refused_before_the_first_one_runs(tmp_path, capsys):
    study = written(tmp_path, TEXT.replace("--workers 0", "--workers 0 --sied 3"))
    assert cli.main(["study", "run", str(study), "--out", str(tmp_path / "o"), "--set", "data=x"]) == 2
    error = capsys.readouterr().err
    assert "stage shards: " in error and "did you mean --size?" in error or "sied" in error
    assert error.count("\n") == 1 and not (tmp_path / "o").exists()


def test_the_folder_keeps_what_it_was_begun_with_and_refuses_another(tmp_path):
    folder = StudyFolder(tmp_path / "o")
    path = written(tmp_path)
    study = file.load(path, {"data": "x"})
    assert folder.check(study) == []
    folder.make()
    folder.freeze(study)
    assert folder.frozen.read_text() == TEXT
    assert "epochs = 3" in (folder.specs / "grid.toml").read_text()
    held = folder.held()["study"]
    assert file.load(path, chosen=held["set"]).values["data"] == "x", "what is not given again stays"
    with pytest.raises(InputError, match='set.data is "x" there, "y" here'):
        folder.check(file.load(path, {"data": "y"}))
    other = written(tmp_path, TEXT.replace("epochs = 3", "epochs = 4"))
    with pytest.raises(InputError, match="epochs is 3 there, 4 here"):
        folder.check(file.load(other, chosen=held["set"]))
    other = written(tmp_path, TEXT.replace("verify {set-data}", "verify {set-data} --decode false"))
    with pytest.raises(InputError, match=r"stage\.look\.run"):
        folder.check(file.load(other, {"data": "x"}))
    more = written(tmp_path, TEXT + '[[stage]]\nname = "more"\nnodes = 3\nrun = "verify x"\n')
    assert folder.check(file.load(more, {"data": "x"})) == ["more"], "stages may be added"
    elsewhere = written(tmp_path, TEXT.replace('name = "look"', 'name = "look"\ntime = "10"') + "# a comment\n")
    assert folder.check(file.load(elsewhere, {"data": "x"})) == [], "where and how long it runs is no part of it"


def test_equal_stages_have_equal_identities_whatever_the_folder_and_other_input_makes_others(tmp_path):
    path = written(tmp_path)
    one = _identities(file.load(path, {"data": "x"}))
    assert one == _identities(file.load(path, {"data": "x"}))
    other = _identities(file.load(path, {"data": "x", "arch": "resnet18"}))
    assert other["grid"] != one["grid"], "its spec says so"
    assert other["shards"] == one["shards"] and other["look"] == one["look"]
    seeds = _identities(file.load(written(tmp_path, TEXT.replace("--workers 0", "--size 64")), {"data": "x"}))
    assert seeds["grid"] != one["grid"], "it needs what is another now"


def test_an_estimate_comes_from_an_equal_stage_measured_here_or_is_none(tmp_path):
    from jobs._study.folder import machine

    study = file.load(written(tmp_path), {"data": "x"})
    found = {stage.name: stage for stage in look(study, StudyFolder(tmp_path / "new"))}
    assert found["shards"].seconds is None and found["shards"].cost.startswith("no estimate")
    record = {"state": "done", "seconds": 120.0, "machine": machine(), "identity": found["shards"].identity}
    StudyFolder(tmp_path / "old").write_record("shards", record)
    again = {stage.name: stage for stage in look(study, StudyFolder(tmp_path / "new"))}
    assert again["shards"].seconds == 120.0 and "about 2 min, as an equal stage took here" in again["shards"].cost
    assert again["grid"].seconds is None
    StudyFolder(tmp_path / "old").write_record("shards", record | {"machine": "another one, 96 cores"})
    assert all(stage.seconds is None for stage in look(study, StudyFolder(tmp_path / "new")))


def test_a_dry_run_prints_every_command_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    written(tmp_path)
    assert cli.main("study run study.toml --out o --set data=x --dry_run".split()) == 0
    shown = capsys.readouterr().out
    assert "$ cxrdist sweep --config o/specs/grid.toml --out o/grid" in shown
    assert "grid: to do (after shards); no estimate" in shown and "3 stages: 3 to do" in shown
    assert [path.name for path in tmp_path.iterdir()] == ["study.toml"]


def test_with_a_profile_the_same_stages_are_slurm_jobs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    written(tmp_path)
    assert cli.main("study run study.toml --out o --set data=x --profile local --dry_run".split()) == 0
    shown = capsys.readouterr().out
    assert shown.count("#SBATCH --job-name") == 3 and "# ==== grid, after shards" in shown
    assert "/tmp/cxrdist-" not in shown, "specs of a rehearsal are named as they will be"
    assert [path.name for path in tmp_path.iterdir()] == ["study.toml"]


def test_a_study_with_values_is_no_chain_and_says_what_to_type(tmp_path, capsys):
    path = written(tmp_path)
    assert cli.main(["submit", "chain", str(path), "--dry_run"]) == 2
    assert f"cxrdist study run {path} --out DIR --profile NAME" in capsys.readouterr().err


def test_a_record_that_is_damaged_counts_as_none(tmp_path):
    folder = StudyFolder(tmp_path)
    folder.write_record("one", {"state": "done"})
    assert folder.record("one") == {"state": "done"}
    (folder.stage("one") / "record.json").write_text("[1,")
    assert folder.record("one") == {}
    folder.info.write_text(json.dumps({"folder": "x"}))
    with pytest.raises(InputError, match="is damaged"):
        folder.held()
    folder.info.write_text(json.dumps({"folder": "x", "study": {}}))
    with pytest.raises(InputError, match="is damaged"):
        folder.held()


def test_a_folder_with_specs_or_logs_of_its_own_is_no_place_for_a_study(tmp_path, capsys):
    written(tmp_path)
    for name in ("specs/grid.toml", "logs/look.log", "stages/look/record.json"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("mine")
        words = ["study", "run", str(tmp_path / "study.toml"), "--out", str(tmp_path), "--set", "data=x"]
        assert cli.main(words) == 2
        assert "holds something else already" in capsys.readouterr().err
        assert (tmp_path / name).read_text() == "mine"


def test_of_two_studies_that_begin_in_one_folder_the_second_is_refused(tmp_path, monkeypatch, capsys):
    study = written(tmp_path)
    (tmp_path / "other.toml").write_text('[[stage]]\nname = "a"\nrun = "verify nowhere"\n')
    make = StudyFolder.make

    def overtaken(self: StudyFolder) -> None:
        make(self)
        self.freeze(file.load(tmp_path / "other.toml"))  # after the first look at the folder, before it is held

    monkeypatch.setattr(StudyFolder, "make", overtaken)
    assert cli.main(["study", "run", str(study), "--out", str(tmp_path / "o"), "--set", "data=x"]) == 2
    assert "holds a study that differs" in capsys.readouterr().err
    assert (tmp_path / "o" / "study.toml").read_text() == (tmp_path / "other.toml").read_text()


def test_a_status_that_looks_at_the_lock_does_not_keep_a_run_out(tmp_path):
    folder = StudyFolder(tmp_path)
    held, enough = threading.Event(), threading.Event()

    def look_at_it() -> None:
        with folder.alone():
            held.set()
            enough.wait(0.3)

    other = threading.Thread(target=look_at_it)
    other.start()
    held.wait()
    with folder.alone():
        pass
    other.join()


def test_a_profile_file_is_meant_from_where_the_command_is_typed(tmp_path, monkeypatch, capsys):
    study, folder = written(tmp_path), StudyFolder(tmp_path / "o")
    monkeypatch.chdir(tmp_path)
    folder.make()
    folder.freeze(file.load(study, {"data": "x"}))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine.toml").write_text('partition = "mine"\n')
    monkeypatch.chdir(tmp_path / "elsewhere")
    words = ["study", "run", str(study), "--out", str(folder.path), "--profile", "mine.toml", "--dry_run"]
    assert cli.main(words) == 0
    assert "#SBATCH --partition=mine" in capsys.readouterr().out and Path.cwd() == tmp_path


def test_what_a_job_of_the_study_is_going_to_run_is_not_run_here_as_well(tmp_path, monkeypatch, capsys):
    study, folder = written(tmp_path), StudyFolder(tmp_path / "o")
    folder.make()
    folder.freeze(file.load(study, {"data": "x"}))
    notes = folder.stage("look") / "submission" / "jobs.json"
    notes.parent.mkdir(parents=True)
    notes.write_text(json.dumps([{"job_id": "7"}]))
    monkeypatch.setattr(client, "active", lambda ids: [client.JobInfo(job_id=one, state="PENDING") for one in ids])
    assert cli.main(["study", "run", str(study), "--out", str(folder.path)]) == 2
    assert "stage look is in the queue as job 7; wait for it" in capsys.readouterr().err
    assert not (folder.path / "logs").exists()


def test_the_report_of_a_queued_study_counts_runs_outside_its_folder_that_are_yet_to_be_made(tmp_path):
    run = f"pretrain --shards {{out}}/shards --out {tmp_path}/aside --global_batch 8 --nproc 1"
    text = TEXT + f'[[stage]]\nname = "simclr"\nneeds = ["shards"]\nrun = "{run}"\n'
    study, folder = file.load(written(tmp_path, text), {"data": "x"}), StudyFolder(tmp_path / "o")
    standings = look(study, folder)
    assert str(tmp_path / "aside") in words_of(study, folder, standings, made=True)
    assert str(tmp_path / "aside") not in words_of(study, folder, standings)


def test_a_text_that_no_stage_made_does_not_end_the_study_in_an_error(tmp_path):
    (tmp_path / "table.md").write_text("| a |\n")
    assert _text_at(str(tmp_path / "table.md")) == "| a |"
    assert _text_at(str(tmp_path / "other.md")).endswith("other.md cannot be shown: No such file or directory")
