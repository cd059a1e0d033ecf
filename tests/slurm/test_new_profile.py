"""A profile from what sinfo says; lines as clusters print them."""

from __future__ import annotations

import pytest

from slurm import client, new_profile, profiles
from slurm.errors import InputError

MIXED = [
    "debug*|up|30:00|2|(null)|16|64000",
    "gpu|up|2-00:00:00|10|gpu:a100:4(S:0-1)|64|515000+",
    "gpu|up|2-00:00:00|3|gpu:v100:2|40+|190000",
    "old|down|infinite|5|gpu:k80:8|32|120000",
]


def written(tmp_path, lines: list[str], wanted: str | None = None) -> tuple[str, profiles.Profile]:
    """The text for a partition, and the profile that is read from it."""
    found = new_profile.parse(lines)
    text = new_profile.text(found, new_profile.choose(found, wanted))
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return text, profiles.load(str(path))


def test_the_partition_with_the_most_gpus_that_is_up_is_chosen_and_its_nodes_are_taken_whole(tmp_path):
    text, profile = written(tmp_path, MIXED)
    assert (profile.partition, profile.gpus_per_node, profile.ranks) == ("gpu", "a100:4", 4)
    assert (profile.cpus_per_rank, profile.time, profile.mem) == (16, "24:00:00", "0")
    assert "#   debug (default): 2 with no GPUs and 16 cores; 0.5 h" in text
    assert "#   gpu: 10 with 4 GPUs a100 and 64 cores; 3 with 2 GPUs v100 and 40 cores; 48 h" in text
    assert "#   old: 5 with 8 GPUs k80 and 32 cores; no limit; closed" in text


def test_a_partition_without_gpus_has_one_rank_a_node_and_a_limit_it_allows(tmp_path):
    _, profile = written(tmp_path, MIXED, "debug")
    assert (profile.gpus, profile.ranks, profile.cpus_per_rank, profile.minutes) == (0, 1, 16, 30)


def test_gpus_without_a_type_and_a_partition_without_a_limit(tmp_path):
    _, profile = written(tmp_path, ["main*|up|infinite|4|gpu:8|128|1000000"])
    assert (profile.gpus_per_node, profile.ranks, profile.cpus_per_rank, profile.time) == (8, 8, 16, "24:00:00")


def test_what_cannot_be_chosen_is_refused_with_what_there_is():
    found = new_profile.parse(MIXED)
    with pytest.raises(
        InputError, match=r"partition 'gpus' is unknown \(did you mean gpu\?\); this cluster has debug, gpu, old"
    ):
        new_profile.choose(found, "gpus")
    with pytest.raises(InputError, match="no partition of this cluster is up"):
        new_profile.choose(new_profile.parse(MIXED[3:]), None)


def test_an_unknown_partition_comes_with_the_nearest_name():
    known = ("gpu", "gpu-long", "debug")
    assert client.not_among("gpulong", known) == (
        "partition 'gpulong' is unknown (did you mean gpu-long?); this cluster has debug, gpu, gpu-long"
    )
    assert "did you mean" not in client.not_among("xyz", known)


def test_a_profile_that_is_there_stays(tmp_path, capsys):
    from jobs import cli

    path = tmp_path / "mine.toml"
    path.write_text("# mine\n")
    assert cli.main(["init-profile", str(path)]) == 2
    assert path.read_text() == "# mine\n" and "is there already" in capsys.readouterr().err
    assert cli.main(["init-profile", str(tmp_path / "mine")]) == 2
    assert "must end in .toml" in capsys.readouterr().err


def test_the_profile_of_a_real_cluster_fits_it_and_an_unknown_partition_is_refused_with_the_nearest(
    cluster, tmp_path, capsys
):
    from jobs import cli
    from slurm import doctor

    path = tmp_path / "ours.toml"
    assert cli.main(["init-profile", str(path)]) == 0
    assert "cxrdist doctor --profile" in capsys.readouterr().out
    profile = profiles.load(str(path))
    assert doctor.fits(profile, 1, tmp_path).level == "ok"
    wrong = f"{profile.partition}x"
    assert cli.main(["init-profile", str(tmp_path / "other.toml"), "--partition", wrong]) == 2
    assert f"did you mean {profile.partition}?" in capsys.readouterr().err
    assert not (tmp_path / "other.toml").exists()
