"""Profiles: what is read, and what is refused by name."""

from __future__ import annotations

import pytest

from slurm import profiles
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
        ("gpus_per_node = '4'", ["gpus_per_node must be a whole number"]),
        ("gpus_per_node = true", ["gpus_per_node must be a whole number"]),
        ("cpus_per_rank = 0", ["cpus_per_rank = 0 must be at least 1"]),
        ("gpus_per_node = 4\nranks_per_node = 3", ["each rank drives one GPU"]),
        ("time = '25 hours'", ["time '25 hours' is not MINUTES"]),
        ("time = '0'", ["no time at all"]),
        ("mem = 'lots'", ["mem = 'lots' is not a size"]),
        ("setup = 'module load cuda'", ["setup must be a list"]),
        ("setup = ['export WANDB_API_KEY=abc']", ["WANDB_API_KEY looks like a secret"]),
        ("[env]\nHF_TOKEN = 'abc'", ["HF_TOKEN looks like a secret"]),
        ("[env]\nWORLD_SIZE = 2", ["[env] WORLD_SIZE is what the launcher tells each rank"]),
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


def test_gpus_become_nodes_and_uneven_requests_are_refused():
    gpu = profiles.load("gpu")
    assert profiles.nodes_for(gpu, nodes=None, gpus=8) == 2
    with pytest.raises(InputError, match="give 4 or 8"):
        profiles.nodes_for(gpu, nodes=None, gpus=6)
    with pytest.raises(InputError, match="gpus_per_node = 0"):
        profiles.nodes_for(profiles.load("local"), nodes=None, gpus=2)
    with pytest.raises(InputError, match="not both"):
        profiles.nodes_for(gpu, nodes=1, gpus=4)
