"""Completion of commands, options and choices, in a real shell."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from jobs import cli

pytest.importorskip("shtab", reason="shtab: not installed here")


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script for bash."""
    import shtab

    from jobs.completion import parser

    path = tmp_path_factory.mktemp("completion") / "cxrdist.bash"
    path.write_text(shtab.complete(parser(), "bash"))
    return path


def completed(script: Path, *words: str) -> set[str]:
    """What bash offers for the last word."""
    typed = " ".join(f"'{word}'" for word in words)
    code = f"source {script}; COMP_WORDS=(cxrdist {typed}); COMP_CWORD={len(words)}; _shtab_cxrdist"
    code += '; printf "%s\\n" "${COMPREPLY[@]}"'
    found = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    return set(found.stdout.split())


def test_commands_are_completed(script: Path) -> None:
    assert completed(script, "pre") == {"pretrain", "predict"}
    assert completed(script, "init") == {"init-profile"}


def test_options_and_their_choices_are_completed(script: Path) -> None:
    assert "--label_fraction" in completed(script, "finetune", "--label")
    assert completed(script, "finetune", "--mode", "l") == {"linear", "last_n"}
    assert "--optim.lr" in completed(script, "pretrain", "--optim.l")
    assert {"--where", "--sort"} <= completed(script, "runs", "--")


def test_the_second_word_of_shard_and_the_profiles_of_submit_are_completed(script: Path) -> None:
    assert completed(script, "shard", "che") == {"chexpert", "chexpert_plus"}
    assert {"gpu", "local"} <= completed(script, "submit", "--profile", "")
    assert {"--out", "--set", "--profile"} <= completed(script, "study", "run", "--")


def test_the_names_of_tables_are_completed(script: Path) -> None:
    assert completed(script, "table", "label") == {"label-efficiency", "labels-saved"}


def test_the_command_prints_a_script_for_each_shell(capsys: pytest.CaptureFixture[str]) -> None:
    for shell, word in (("bash", "-F _shtab_cxrdist cxrdist"), ("zsh", "#compdef cxrdist")):
        assert cli.main(["completion", shell]) == 0
        assert word in capsys.readouterr().out
    assert cli.main(["completion", "fish"]) == 2


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh: not installed here")
def test_zsh_can_read_its_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", "zsh"]) == 0
    path = tmp_path / "_cxrdist"
    path.write_text(capsys.readouterr().out)
    subprocess.run(["zsh", "-n", str(path)], check=True)
