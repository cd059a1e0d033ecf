"""Jobs in an image: the batch scripts whole, what is refused, and a stand-in for Apptainer on the real cluster.

Apptainer, enroot and pyxis do not install here. tests/slurm/apptainer takes the options of `apptainer exec` and opens
an "image" in Linux namespaces, with nothing in it but what the image and the binds name.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import wait_until
from test_commands import SMALL, end_of

from jobs import cli
from results.run import Run
from slurm import container, doctor, profiles, submit
from slurm.drill import lost_and_repeated
from slurm.errors import InputError
from tests.shards.conftest import by_hand

ROOT = Path(__file__).parents[2]
OUTSIDE = "exec /opt/env/bin/python -P -m slurm.requeue /runs/r1/submission $? 100 $ended"
SRUN = "srun --unbuffered --output /runs/r1/submission/%j_%t_log.out --export=ALL --kill-on-bad-exit=1 "
SRUN += "--ntasks-per-node=1 --cpus-per-task="
INSIDE = "env -u PYTHONPATH PYTHONNOUSERSITE=1 /opt/cxrdist/bin/python -P -u -m submitit.core._submit"
WHOLE = """\
#!/bin/bash

# Parameters
#SBATCH --cpus-per-task=32
#SBATCH --gpus-per-node=4
#SBATCH --job-name=simclr
#SBATCH --mem=0
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
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
module load apptainer
export PYTHONSAFEPATH=1
# submitit looks for a job's task under the job's number; so plain sbatch can send this file again
ln -sf task.pkl /runs/r1/submission/"${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}\
${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}_submitted.pkl"
trap ended=ended TERM  # outlive it, to say what becomes of the job

# command
export SUBMITIT_EXECUTOR=slurm
@COMMAND@


# teardown
# decides by the exit status whether the job is complete, failed, or goes back to the queue
@OUTSIDE@"""
APPTAINER = container.Container(image="/images/c.sif", binds=("/shared", "/data:/data:ro"))
PYXIS = dataclasses.replace(APPTAINER, runtime="pyxis", image="/images/c.sqsh", options=("--container-mount-home",))
SINGULARITY = dataclasses.replace(APPTAINER, runtime="singularity", image="docker://us/c:1", options=("--no-home",))
BINDS = "--bind /shared --bind /data:/data:ro --bind /runs/r1 --bind /work --pwd /work"
MOUNTS = "--container-mounts=/shared:/shared,/data:/data:ro,/runs/r1:/runs/r1,/work:/work --container-workdir=/work"
BY_PYXIS = f"32 --container-image=/images/c.sqsh {MOUNTS} --container-env=NCCL_SOCKET_IFNAME --container-mount-home env"


def text(inside: container.Container, monkeypatch, **values) -> str:
    monkeypatch.setattr(sys, "executable", "/opt/env/bin/python")
    monkeypatch.setattr(Path, "cwd", lambda: Path("/work"))
    profile = dataclasses.replace(
        profiles.load("gpu"),
        setup=("module load apptainer",),
        env={"NCCL_SOCKET_IFNAME": "ib0"},
        container=inside,
    )
    task = submit.task_for(profile, **{"kind": "ranks", "words": ("m",), "folder": "/runs/r1/submission", **values})
    return submit.text(submit.Request(name="simclr", task=task, profile=profile, nodes=2))


@pytest.mark.parametrize("kind", ["ranks", "ray", "command"])
@pytest.mark.parametrize(
    ("inside", "command"),
    [
        (APPTAINER, f"32 apptainer exec --nv {BINDS} /images/c.sif env"),
        (SINGULARITY, f"32 singularity exec --nv {BINDS} --no-home docker://us/c:1 env"),
        (PYXIS, BY_PYXIS),
    ],
    ids=["apptainer", "singularity", "pyxis"],
)
def test_sbatch_text_of_a_job_in_an_image_is_exactly_this(monkeypatch, kind, inside, command):
    line = f"{SRUN}{command} {INSIDE.removeprefix('env ')} /runs/r1/submission"
    assert text(inside, monkeypatch, kind=kind) == WHOLE.replace("@COMMAND@", line).replace("@OUTSIDE@", OUTSIDE)


def test_driver_is_brought_in_where_gpus_are_asked_for_or_as_the_profile_says(monkeypatch):
    assert "--nv" not in text(APPTAINER, monkeypatch, gpus_per_node=0)
    assert "--nv" not in text(dataclasses.replace(APPTAINER, nv=False), monkeypatch)
    assert "--nv" in text(dataclasses.replace(APPTAINER, nv=True), monkeypatch, gpus_per_node=0)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("", "has no image"),
        ("image = 3", "image must be a string, not 3"),
        ("image = 'c.sif'", "image = 'c.sif' is neither an absolute path nor an address such as docker://IMAGE:TAG"),
        ("image = 'a b'\nruntime = 'pyxis'", "image = 'a b' is neither an absolute path nor [USER@]"),
        ("image = '/c'\nruntime = 'docker'", "runtime = 'docker' is not one of apptainer, singularity, pyxis"),
        ("image = '/c'\nruntime = 'pyxis'\nnv = true", "nv: with pyxis enroot itself brings"),
        ("image = '/c'\nnv = 1", "nv must be true or false, not 1"),
        ("image = '/c'\nbinds = '/data'", "binds must be a list of strings, not '/data'"),
        ("image = '/c'\nbinds = ['data']", "binds: 'data' is not SOURCE"),
        ("image = '/c'\nbinds = ['/a,/b']", "binds: '/a,/b' is not SOURCE"),
        ("image = '/c'\npython = 'python3'", "python = 'python3' must be an absolute path"),
        ("image = '/c'\noptions = ['no-home']", "options: 'no-home' does not begin with a dash"),
        ("image = '/c'\nimages = '/d'", "unknown key 'images'; known keys: image, runtime, binds"),
    ],
)
def test_wrong_container_is_refused_by_file_and_key(tmp_path, lines, words):
    path = tmp_path / "mine.toml"
    path.write_text(f"[container]\n{lines}\n")
    with pytest.raises(InputError) as refusal:
        profiles.load(str(path))
    assert f"{path}: [container] " in str(refusal.value) and words in str(refusal.value)


def test_container_that_is_no_table_is_refused(tmp_path):
    (tmp_path / "mine.toml").write_text("container = '/c.sif'\n")
    with pytest.raises(InputError, match="container must be a table with an image, not '/c.sif'"):
        profiles.load(str(tmp_path / "mine.toml"))


def test_image_that_is_not_there_and_a_folder_that_cannot_be_bound_are_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    by_hand(tmp_path / "s")
    (tmp_path / "mine.toml").write_text(f"[container]\nimage = '{tmp_path}/c.sif'\n")
    words = "submit finetune --profile mine.toml --shards s --dry_run --out".split()
    assert cli.main([*words, "r"]) == 2
    assert "c.sif: no such file here; build it from containers/cxrdist.def" in capsys.readouterr().err
    (tmp_path / "c.sif").touch()
    assert cli.main([*words, "r:1"]) == 2
    shown = capsys.readouterr()
    assert "r:1: ':' and ',' separate folders that a container sees" in shown.err and shown.out == ""
    assert cli.main([*words, "r"]) == 0
    assert f"apptainer exec --bind {tmp_path}/r --bind {tmp_path} --pwd" in capsys.readouterr().out


def test_versions_of_an_image_that_differ_are_a_failure_with_its_fix(tmp_path):
    profile = profiles.Profile(name="mine", container=APPTAINER)
    answer = {
        "host": "n1",
        "sees": True,
        "time": 1.0,
        "versions": {"torch": "2.0"},
        "open_files": 10**6,
        "shm_mib": 10**5,
    }
    found = doctor._node(answer, profile, {"torch": "2.11"}, 1.0, 1.0, tmp_path)
    versions = next(one for one in found if one.what == "n1: versions")
    assert (versions.level, versions.found) == ("FAIL", "torch 2.11 here, 2.0 there")
    assert "build the image again from containers/cxrdist.def" in versions.fix


def test_definition_copies_every_package_and_installs_by_the_constraints():
    lines = (ROOT / "containers" / "cxrdist.def").read_text().splitlines()
    copied = {line.split()[0] for line in lines[lines.index("%files") + 1 : lines.index("%post") - 1]}
    built = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = set(built["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    needed = {built["project"]["readme"], *built["project"]["license-files"], "pyproject.toml", "constraints.txt"}
    assert copied == packages | needed and all((ROOT / name).exists() for name in copied)
    assert any("pip install" in line and "--constraint /opt/source/constraints.txt" in line for line in lines)


@pytest.fixture
def image(tmp_path, monkeypatch) -> Path:
    """A profile whose jobs run in an image of this machine's system and of this environment, by the stand-in."""
    folders = {sys.prefix, sys.base_prefix, str(ROOT), *(path for path in sys.path if "packages" in path)}
    folders |= {str(Path(path).resolve()) for path in folders}
    held = tmp_path / "image.sif"
    held.write_text("\n".join(["/usr", "/bin", "/lib", "/lib64", "/etc", "/dev", "/proc", "/sys", *sorted(folders)]))
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "apptainer").symlink_to(ROOT / "tests" / "slurm" / "apptainer")
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    profile = tmp_path / "mine.toml"
    profile.write_text(
        f"ranks_per_node = 2\ntime = '10'\n[container]\nimage = '{held}'\npython = '{sys.executable}'\n"
        f"binds = ['{tmp_path}']\n"
    )
    return profile


@pytest.mark.slurm
@pytest.mark.slow
def test_ranks_ray_and_doctor_work_inside_an_image_and_a_stop_signal_reaches_the_ranks(
    cluster, image, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert cli.main(f"doctor --profile {image} --nodes 2 --out {tmp_path}".split()) == 0
    assert capsys.readouterr().out.count("versions: the same as here") == 2
    assert cli.main("shard phantom --out set --images 60 --size 48".split()) == 0
    words = f"submit pretrain --profile {image} --nodes 2 --shards set --out run {SMALL} --steps 24 --log_every 1"
    assert cli.main(words.split()) == 0
    run = Run(tmp_path / "run")
    wait_until(lambda: len(run.read_log()) >= 4, 180, "the fourth step")
    job = submit.job_ids(run.submission)[-1]
    subprocess.run(["scancel", "--signal=USR2", job], check=True)
    assert end_of(run.submission, 300) == "COMPLETED"
    done = run.read_done()
    assert (done["world"], done["steps"]) == (4, 24)
    steps = [json.loads(line)["step"] for line in run.metrics_log.read_text().splitlines() if '"images_per_s"' in line]
    assert lost_and_repeated(steps, 24) == (0, 0)
    variables = json.loads((run.submission / f"environment-{job}.json").read_text())["variables"]
    assert variables["APPTAINER_CONTAINER"].endswith("image.sif")
    words = f"submit sweep --profile {image} --nodes 2 --shards set --out grid --init scratch,run --seed 0,1"
    words += ' --finetune={"labels":["pneumonia"],"epochs":1,"device":"cpu","image_size":32,"arch":"test_resnet"}'
    words += " --label_fraction 1.0 --mode linear"
    assert cli.main(words.split()) == 0
    assert end_of(tmp_path / "grid" / "submission", 400) == "COMPLETED"
    assert len([*(tmp_path / "grid").glob("cells/*/done.json")]) == 4
