"""The sbatch text, whole, and what is refused before anything is queued."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from pathlib import Path

import pytest

from jobs import _tasks, cli
from slurm import chain, checks, client, profiles, status, submit
from slurm.errors import FailedError, InputError
from tests.shards.conftest import by_hand

GOLDEN = """\
#!/bin/bash

# Parameters
#SBATCH --account=radiology
#SBATCH --constraint=a100
#SBATCH --cpus-per-task=32
#SBATCH --dependency=afterok:12:13
#SBATCH --gpus-per-node=4
#SBATCH --job-name=simclr
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --mem=0
#SBATCH --nodes=2-4
#SBATCH --open-mode=append
#SBATCH --output=/runs/r1/submission/%j_0_log.out
#SBATCH --partition=gpu
#SBATCH --requeue
#SBATCH --signal=USR2@180
#SBATCH --time=1440

# setup
umask 077
# a shell inside another job would hand these on
unset SLURM_CLUSTERS ${!SLURM_ARRAY_@}
export NCCL_SOCKET_IFNAME=ib0
module load cuda
export PYTHONSAFEPATH=1
# submitit looks for a job's task under the job's number; so plain sbatch can send this file again
ln -sf task.pkl /runs/r1/submission/"${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}\
${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}_submitted.pkl"
trap ended=ended TERM  # outlive it, to say what becomes of the job

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /runs/r1/submission/%j_%t_log.out --export=ALL --kill-on-bad-exit=1 \
--ntasks-per-node=1 --cpus-per-task=32 /opt/env/bin/python -P -u -m submitit.core._submit /runs/r1/submission


# teardown
# decides by the exit status whether the job is complete, failed, or goes back to the queue
exec /opt/env/bin/python -P -m slurm.requeue /runs/r1/submission $? 100 $ended
"""


def request(**values) -> submit.Request:
    profile = dataclasses.replace(
        profiles.load("gpu"),
        account="radiology",
        setup=("module load cuda",),
        env={"NCCL_SOCKET_IFNAME": "ib0"},
        sbatch={"constraint": "a100"},
    )
    task = submit.task_for(profile, kind="ranks", words=("cxrdist.pretrain", "/runs/r1"), folder="/runs/r1/submission")
    return submit.Request(**{"name": "simclr", "task": task, "profile": profile, "nodes": 4, "min_nodes": 2, **values})


def test_sbatch_text_is_exactly_this(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/opt/env/bin/python")
    assert submit.text(request(after=("12", "13"))) == GOLDEN.rstrip("\n")


def test_array_and_short_job_are_said_in_the_text():
    short = dataclasses.replace(request().profile, time="5")
    text = submit.text(request(array=8, profile=short, min_nodes=None))
    assert "unset SLURM_CLUSTERS\n" in text
    assert "#SBATCH --array=0-7\n" in text and "#SBATCH --nodes=4\n" in text
    assert "#SBATCH --signal=USR2@150\n" in text  # at most half of the time limit


def test_dry_run_prints_the_text_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")  # needs no SLURM either
    by_hand(tmp_path / "s")
    words = "submit pretrain --nodes 2 --shards s --out r --global_batch 8 --dry_run --time 0-02".split()
    assert cli.main(words) == 0
    text = capsys.readouterr().out
    assert "#SBATCH --nodes=2\n" in text and "#SBATCH --time=120\n" in text and f"{tmp_path}/r/submission" in text
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("pretrain --shards nowhere --out r", "nowhere is not a shard set: no such folder"),
        ("pretrain --shards s --out taken", "taken holds other files (notes.txt) and is not a run"),
        ("pretrain --shards s --out r --init taken/notes.txt", "notes.txt is neither a .safetensors file nor one that"),
        ("pretrain --shards s --out r --init w.safetensors", "w.safetensors is not a safetensors file, or is damaged"),
        ("pretrain --shards s --out r --head.hidden -1", "head.hidden = -1: must be in"),
        ('pretrain --shards s --out r --augment.off ["colour"]', "augment.off names colour"),
        ("finetune --shards nowhere --out r", "nowhere is not a shard set"),
        ("finetune --shards s --out taken", "taken holds other files (notes.txt)"),
        ("finetune --shards s --out r --init taken/notes.txt", "notes.txt is neither a .safetensors file"),
        ("finetune --shards s --out r --threshold best", "threshold = 'best'"),
        ("finetune --shards s --out r --labels nonsense", "s: unknown label 'nonsense'; the labels are"),
        ("finetune --shards s --out r --labels mass,edema", "s: no label mass in this shard set; it has pneumonia,"),
        ('finetune --shards s --out r --uncertain={"nonsense":"ones"}', "'nonsense', which is not a label"),
        ("finetune --shards t --out r", "t has no split 'test'; it has train"),
        ("finetune --shards s --out r --eval_shards t", "t has no split 'test'"),
        ("finetune --shards s --out r --arch small_cnn --init imagenet", "small_cnn starts from scratch only"),
        ("finetune --shards s --out taken/notes.txt/r", "notes.txt is a file, not a folder"),
        ('pretrain --shards s --out r --pool.keep={"nonsense":1.0}', "pool.keep names 'nonsense'; "),
        ("pretrain --shards s --out r --nodes 1 --min_nodes 2", "--min_nodes 2 must be between 1 and --nodes 1"),
        ("pretrain --shards s --out r%j", "SLURM gives '%' in the path of a log a meaning of its own"),
        ("pretrain --shards s --out r --init_mean 0.4", "init_mean is given alone"),
        ("sweep --shards s --out taken --init scratch", "taken holds notes.txt and is not a sweep"),
        ('sweep --shards s --out r --finetune={"labels":["nonsense"]}', "cell shards=s: s: unknown label 'nonsense'"),
        ("sweep --shards s --out r --init nowhere", "init nowhere: no such file or run"),
        ("shard csv --src s --out r --table t --part 3/2", "--part '3/2'"),
    ],
)
def test_a_dry_run_refuses_what_the_run_would_refuse(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    by_hand(tmp_path / "s", splits={"train": 4, "val": 2, "test": 2})
    by_hand(tmp_path / "t", splits={"train": 4})
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    (tmp_path / "w.safetensors").write_bytes(b"hello")
    before = sorted(tmp_path.rglob("*"))
    batch = ["--global_batch", "4"] if words.startswith(("pretrain", "finetune")) else []
    assert cli.main(["submit", *words.split(), *batch, "--dry_run"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ("pretrain --shards made --out p --nproc 3 --global_batch 8", "does not divide evenly among 3 ranks"),
        ("finetune --shards made --out f --threshold best", "threshold = 'best'"),
        ("sweep --shards made --out w --label_fraction 0.1,2", "label_fraction = 2.0: must be in (0, 1]"),
        ("finetune --shards there --out f --init made --labels nonsense", "there: unknown label 'nonsense'"),
        ("finetune --shards made --out f --init there/dataset.json", "neither a .safetensors file nor one that"),
        ("finetune --shards made --out there", "there holds other files"),
        ("pretrain --shards there --out p --init made --global_batch 64", "there has 37 images to learn from"),
        ("pretrain --shards there --out p --pool.keep '{\"nonsense\": 1.0}'", "pool.keep names 'nonsense'"),
        ("sweep --shards made --out there", " and is not a sweep; choose an empty or new --out"),
        (
            'sweep --shards made,there --out w --finetune \'{"labels": ["nonsense"]}\'',
            "cell shards=there: there: unknown label 'nonsense'",
        ),
    ],
)
def test_a_stage_that_waits_for_another_has_its_settings_checked(tmp_path, monkeypatch, capsys, run, message):
    monkeypatch.chdir(tmp_path)
    first = 'name = "first"\nrun = "shard csv --src s --out made --table t.csv"'
    words = json.dumps(shlex.split(run))  # a list of strings is written alike in JSON and TOML
    text = f'[[stage]]\n{first}\n[[stage]]\nname = "second"\nneeds = ["first"]\nrun = {words}\n'
    by_hand(tmp_path / "there")
    (tmp_path / "chain.toml").write_text(text)
    assert cli.main("submit chain chain.toml --dry_run".split()) == 2
    error = capsys.readouterr().err
    assert "stage second: " in error and message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('stage = "x"', "stage = 'x': must be tables, each begun with [[stage]]"),
        ('[[stage]]\nname = "a"\nrun = "collect x"\nneeds = 5', "needs must be a list of stage names"),
        ('[[stage]]\nname = "a"\nrun = "collect \'x"', "No closing quotation"),
        ('profile = 5\n[[stage]]\nname = "a"\nrun = "collect x"', "profile = 5: must be the name of a profile"),
        ('[[stage]]\nname = "a"\nrun = "collect x"\nnodes = [2]', "nodes = [2]: must be one value"),
    ],
)
def test_a_chain_of_another_shape_is_refused_by_file_and_key(tmp_path, capsys, text, message):
    (tmp_path / "chain.toml").write_text(text)
    assert cli.main(["submit", "chain", str(tmp_path / "chain.toml"), "--dry_run"]) == 2
    error = capsys.readouterr().err
    assert message in error and "chain.toml" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("pretrain --nodes 3 --shards s --out r --global_batch 8", "cannot be split evenly over 6 ranks"),
        ("pretrain --nodes 2 --shards s --out r --global_batchh 8", "global_batchh"),
        ("pretrain --nodes two --shards s --out r", "--nodes two must be a whole number"),
        ("pretrain --profile nowhere --shards s --out r", "not one of gpu, local"),
        ("pretrain --time soon --shards s --out r", "time 'soon' is not MINUTES"),
        ("pretrain --profile gpu --gpus 6 --shards s --out r", "give 4 or 8"),
        ("pretrain --nodes --shards s", "--nodes needs a value"),
        ("finetune --nodes 2 --shards s --out r", "one trial runs on one node"),
        ("status r", "cannot be queued"),
        ("chain nowhere.toml", "nowhere.toml: No such file"),
    ],
)
def test_unusable_request_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["submit", *words.split()]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_without_slurm_every_command_says_so_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FailedError, match="no sinfo here: run this on the cluster's login node"):
        checks.check(request())


def test_slurm_that_is_not_configured_or_not_answering_is_told_apart():
    assert "set SLURM_CONF" in str(
        client.explain("sbatch", "sbatch: fatal: Could not establish a configuration source")
    )
    text = "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)"
    assert "controller does not answer" in str(client.explain("sbatch", text))
    assert "munge" in str(client.explain("sinfo", "sinfo: error: Munge encode failed: Failed to access socket"))


def test_submits_own_options_are_taken_out_wherever_they_stand():
    own, rest = _tasks.split("--shards s --nodes 2 --optim.lr=3 --dry_run --time=60 --out r".split())
    assert own == {"nodes": "2", "dry_run": "true", "time": "60"}
    assert rest == "--shards s --optim.lr=3 --out r".split()


def test_submit_takes_no_option_that_a_command_has_for_itself():
    for name in _tasks.SUBMITTABLE:
        module = cli._load(name)
        configs = getattr(module, "CONFIGS", None) or {name: module.Config}
        for config in configs.values():
            own = {field.name for field in dataclasses.fields(config)} - set(getattr(module, "POSITIONALS", ()))
            assert own & set(_tasks.OPTIONS) <= {"dry_run"}, name


def test_chain_is_ordered_by_needs_and_refuses_circles(tmp_path):
    path = tmp_path / "chain.toml"
    stage = '[[stage]]\nname = "{}"\nrun = "collect {} --out x.parquet"\nneeds = {}\n'
    path.write_text(stage.format("b", "r", '["a"]') + stage.format("a", "r", "[]"))
    assert [found.name for found in chain.load(path)] == ["a", "b"]
    path.write_text(stage.format("b", "r", '["a"]') + stage.format("a", "r", '["b"]'))
    with pytest.raises(InputError, match="in a circle"):
        chain.load(path)
    path.write_text(stage.format("b", "r", '["c"]'))
    with pytest.raises(InputError, match="needs 'c', which is not one of b"):
        chain.load(path)
    path.write_text('[[stage]]\nname = "a"\nrun = "collect r"\nnode = 2\n')
    with pytest.raises(InputError, match="unknown key 'node'"):
        chain.load(path)


def test_example_of_a_chain_is_accepted_as_it_stands(monkeypatch, capsys):
    root = Path(__file__).parents[2]
    monkeypatch.chdir(root)
    assert cli.main("submit chain examples/chain.toml --dry_run".split()) == 0
    shown = capsys.readouterr().out
    assert shown.count("# ==== ") == 6 and shown.count("#!/bin/bash") == 8  # two of the stages are array and merge
    assert not (root / "runs" / "sweep").exists()


@pytest.mark.parametrize("words", ["status --jsn r", "status", "logs r --node a", "cancel --force r", "status r"])
def test_wrong_word_to_a_login_node_command_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words.split()) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_progress_tells_steps_and_time_left():
    rows = [{"step": 10, "epoch": 0.5, "images_per_s": 200.0}, {"step": 20, "epoch": 1.0, "images_per_s": 100.0}]
    found = status.progress(rows, {"epochs": 10, "global_batch": 50})
    assert (found.step, found.steps, found.images_per_s, found.seconds_left) == (20, 200, 100.0, 90.0)
    # epochs are logged with few digits, and a short training has a least number of steps: never step 111 of 110
    late = [{"step": 111, "epoch": 10.1, "loss": 1.0}]
    assert status.progress(late, {"epochs": 10, "global_batch": 50}).steps == 111
    assert status.progress([{"step": 20, "epoch": 10.0}], {"epochs": 10, "min_steps": 60}).steps == 60
    ended = status.progress(late, {"epochs": 20}, {"steps": 111})
    assert (ended.step, ended.steps) == (111, 111), "complete, although it stopped early"
    assert status.progress([], {}).step is None
    assert [status.duration(s) for s in (None, 5, 600, 9000, 200000)] == ["-", "5 s", "10 min", "2.5 h", "2.3 d"]
