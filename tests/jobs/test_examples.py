"""The studies in examples/ and those that come with the program can be planned as they stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs import cli
from jobs._study.file import PACKAGED

ROOT = Path(__file__).resolve().parents[2]
STUDIES = {path.parent.name: path for path in sorted((ROOT / "examples").glob("*/study.toml"))}
STUDIES |= {path.stem: path for path in sorted(PACKAGED.glob("*.toml"))}
VALUES = {"nih_chexpert_transfer": ["nih=/data/nih", "chexpert=/data/chexpert"], "demo": ["seed=1"]}


def test_there_are_the_five_published_systems_the_headline_and_the_demos():
    assert set(STUDIES) == {
        "kermany_ssl", "nih_chexpert_transfer", "pneumoniamnist", "kermany_resnet50", "chexpert_fewshot",
        "pneumoniamnist_headline", "demo", "demo_medmnist", "demo_shards",
    }  # fmt: skip


@pytest.mark.parametrize("name", STUDIES)
def test_every_stage_of_a_study_is_a_command_with_sound_settings(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    values = VALUES.get(name, ["data=/data/there"])
    if name == "demo_shards":  # its first stage reads the shard set
        from tests.cxrdist import findings

        values = [f"data={findings.make(tmp_path, name='here')}", "global_batch=16"]
    assert cli.main(["study", "run", str(STUDIES[name]), "--out", "out", "--set", *values, "--dry_run"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("$ cxrdist ") >= 6 and "{" not in shown.replace('{"', "")
    assert not Path("out").exists()


@pytest.mark.parametrize("name", [name for name in STUDIES if not name.startswith("demo")])
def test_a_study_has_a_page_with_its_command_and_published_numbers_beside_ours(name):
    text = (STUDIES[name].parent / "README.md").read_text()
    assert f"cxrdist study run examples/{name}/study.toml --out " in text
    assert "published" in text and "ours" in text
