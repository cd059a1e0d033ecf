"""Profiles: what is read, and what is refused by name."""

from __future__ import annotations

import pytest

from slurm import gpus, profiles
from slurm.errors import InputError


def write(tmp_path, text: str) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return str(path)


def test_packaged_profiles_load():
    assert profiles.load("local").ranks == 2
    gpu = profiles.load("gpu")
    assert (gpu.ranks, gpu.partition, gpu.minutes) == (4, "gpu", 1440)


def test_own_profile_wins_over_the_packaged_one_of_the_same_name(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder = tmp_path / "cxrdist" / "profiles"
    folder.mkdir(parents=True)
    (folder / "gpu.toml").write_text('partition = "ours"\n')
    assert profiles.load("gpu").partition == "ours"
    assert set(profiles.names()) == {"gpu", "local"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('partion = "gpu"', ["unknown key 'partion'", "did you mean partition"]),
        ("gpus_per_node = 'four'", ["gpus_per_node = 'four' is neither a number nor TYPE:NUMBER"]),
        ("gpus_per_node = true", ["gpus_per_node must be a whole number or a string"]),
        ("gpus_per_node = -1", ["gpus_per_node = -1 must be at least 0"]),
        ("gpus_per_node = 4\ngres = 'gpu:4'", ["asks for GPUs and so does gpus_per_node"]),
        ("gres = 'gpu:a100:2,gpu:v100:2'", ["several types"]),
        ("gres = 'gpu:a100:2 --exclusive'", ["is not a list such as"]),
        ("[sbatch]\ngres = 'gpu:4'", ["[sbatch] gres: GPUs are asked for by the profile's own gpus_per_node"]),
        ("[sbatch]\ngpus-per-task = 1", ["[sbatch] gpus-per-task: GPUs are asked for by"]),
        ("cpus_per_rank = 0", ["cpus_per_rank = 0 must be at least 1"]),
        ("gpus_per_node = 4\nranks_per_node = 3", ["each rank drives one GPU"]),
        ("time = '25 hours'", ["time '25 hours' is not MINUTES"]),
        ("time = '0'", ["no time at all"]),
        ("mem = 'lots'", ["mem = 'lots' is not a size"]),
        ("setup = 'module load cuda'", ["setup must be a list"]),
        ("setup = ['export WANDB_API_KEY=abc']", ["WANDB_API_KEY looks like a secret"]),
        ("[env]\nHF_TOKEN = 'abc'", ["HF_TOKEN looks like a secret"]),
        ("[env]\nWORLD_SIZE = 2", ["[env] WORLD_SIZE is set by the launcher for each rank"]),
        ("[sbatch]\nnodes = 3", ["[sbatch] nodes is decided by"]),
        ("[sbatch]\nclusters = 'east'", ["[sbatch] clusters: choose the cluster by `export SLURM_CLUSTERS=NAME`"]),
        ("time = ", ["not TOML"]),
    ],
)
def test_wrong_profile_is_refused_in_one_line_that_names_file_and_key(tmp_path, text, words):
    path = write(tmp_path, text)
    with pytest.raises(InputError) as refusal:
        profiles.load(path)
    assert path in str(refusal.value) and "abc" not in str(refusal.value)
    for word in words:
        assert word in str(refusal.value)


def test_unknown_profile_lists_the_known_ones():
    with pytest.raises(InputError, match="not one of gpu, local"):
        profiles.load("gpuu")
    with pytest.raises(InputError, match="no such file"):
        profiles.load("./gpuu.toml")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 5400), ("1:30", 90), ("02:00:00", 7200), ("1-0", 86400), ("1-2:30", 95400), ("2-00:00:05", 172805)],
)
def test_slurm_time_notation(text, seconds):
    assert profiles.time_seconds(text) == seconds


@pytest.mark.parametrize(
    ("text", "options", "of_one", "of_none"),
    [
        ("gpus_per_node = 4", {"gpus-per-node": "4"}, {"gpus-per-node": "1"}, {}),
        ("gpus_per_node = 'a100:4'", {"gpus-per-node": "a100:4"}, {"gpus-per-node": "a100:1"}, {}),
        ("gres = 'gpu:4'", {"gres": "gpu:4"}, {"gres": "gpu:1"}, {}),
        (
            "gres = 'gpu:1g.10gb:4,nvme:1'",
            {"gres": "gpu:1g.10gb:4,nvme:1"},
            {"gres": "gpu:1g.10gb:1,nvme:1"},
            {"gres": "nvme:1"},
        ),
        (
            "gpus_per_node = 4\ngres = 'nvme:1'",
            {"gpus-per-node": "4", "gres": "nvme:1"},
            {"gpus-per-node": "1", "gres": "nvme:1"},
            {"gres": "nvme:1"},
        ),
    ],
)
def test_every_way_of_asking_for_gpus_gives_ranks_and_options(tmp_path, text, options, of_one, of_none):
    profile = profiles.load(write(tmp_path, text))
    assert (profile.gpus, profile.ranks, profiles.nodes_for(profile, nodes=None, gpus=8)) == (4, 4, 2)
    assert [profile.gpu_options(count) for count in (4, 1, 0)] == [options, of_one, of_none]


def test_gpus_of_a_node_are_counted_over_its_types():
    assert gpus.counts("gpu:a100:4(S:0-1),gpu:v100:2(S:2,3),nvme:1") == {"a100": 4, "v100": 2}
    assert gpus.counts("gpu:8(IDX:0-7)") == {"": 8}
    assert gpus.counts("gpu:1g.5gb:7") == {"1g.5gb": 7}
    assert gpus.counts("(null)") == {}


def test_gpus_become_nodes_and_uneven_requests_are_refused():
    gpu = profiles.load("gpu")
    assert profiles.nodes_for(gpu, nodes=None, gpus=8) == 2
    with pytest.raises(InputError, match="give 4 or 8"):
        profiles.nodes_for(gpu, nodes=None, gpus=6)
    with pytest.raises(InputError, match="gpus_per_node = 0"):
        profiles.nodes_for(profiles.load("local"), nodes=None, gpus=2)
    with pytest.raises(InputError, match="not both"):
        profiles.nodes_for(gpu, nodes=1, gpus=4)
