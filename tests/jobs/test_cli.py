"""The command line: one line per error, exit code 2, nothing heavy imported."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import types

import pytest

from jobs import cli

HEAVY = ("torch", "ray", "timm", "pandas", "scipy", "sklearn", "matplotlib")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    """Optimiser."""

    lr: float = 0.1
    """Learning rate."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
    """A job."""

    run: str
    """Folder."""
    label_fraction: float = 1.0
    """Share of labels."""
    shards: str | None = None
    """Shard set; None = none."""
    dry_run: bool = False
    """Only say what would be done."""
    optim: Inner = dataclasses.field(default_factory=Inner)
    """Optimiser."""


@pytest.fixture
def job(monkeypatch):
    """A throw-away subcommand called `demo`, recording what it was run with."""
    seen = []
    module = types.SimpleNamespace(HELP="a job", Config=Outer, POSITIONALS=("run",), run=seen.append)
    monkeypatch.setattr(cli, "_load", lambda name: module)
    return seen


def test_options_positionals_and_dotted_overrides_become_one_frozen_config(job):
    assert cli.main(["demo", "here", "--optim.lr", "3", "--label_fraction=0.5"]) == 0
    assert job == [Outer(run="here", label_fraction=0.5, optim=Inner(lr=3.0))]


@pytest.mark.parametrize(
    "words", [["--dry_run"], ["--dry_run", "true"], ["--dry_run=true"], ["--dry_run", "--shards", "x"]]
)
def test_a_switch_needs_no_value(job, words):
    assert cli.main(["demo", "here", *words]) == 0
    assert job[0].dry_run is True


def test_a_switch_can_be_turned_off(job):
    assert cli.main(["demo", "here", "--dry_run", "false"]) == 0
    assert job[0].dry_run is False


def test_a_spec_file_is_read_and_later_options_win(job, tmp_path):
    spec = tmp_path / "spec.toml"
    spec.write_text("label_fraction = 0.25\n[optim]\nlr = 7.0\n")
    assert cli.main(["demo", "here", "--config", str(spec), "--optim.lr", "2"]) == 0
    assert job[0].label_fraction == 0.25 and job[0].optim.lr == 2.0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["demo", "here", "--optim.lrr", "3"], "did you mean --optim.lr?"),
        (["demo", "here", "--label_fraction", "many"], "label_fraction"),
        (["demo"], "run"),
        (["demo", "here", "--config", "missing.toml"], "missing.toml: no such file"),
    ],
)
def test_unusable_arguments_are_one_line_and_exit_code_2(job, capsys, words, says):
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1 and "Traceback" not in error
    assert job == []


def test_an_unknown_key_of_a_spec_is_refused_by_name(job, capsys, tmp_path):
    spec = tmp_path / "spec.toml"
    spec.write_text("[optim]\nlearning = 7.0\n")
    assert cli.main(["demo", "here", "--config", str(spec)]) == 2
    assert "learning" in capsys.readouterr().err


def test_a_mistyped_command_is_answered_with_the_nearest_one(capsys):
    assert cli.main(["pretrian"]) == 2
    assert "did you mean pretrain?" in capsys.readouterr().err


def test_an_unforeseen_error_is_one_line_unless_debug_asks_for_the_traceback(job, monkeypatch, capsys):
    def broken(config):
        raise ZeroDivisionError("by nought")

    monkeypatch.setattr(cli._load("demo"), "run", broken, raising=False)
    assert cli.main(["demo", "here"]) == 1
    assert "ZeroDivisionError: by nought" in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError):
        cli.main(["demo", "here", "--debug"])


def test_help_and_every_subcommand_module_import_nothing_heavy():
    code = (
        "import sys, importlib; from jobs import cli; cli.main(['--help'])\n"
        "[importlib.import_module(cli.module_name(name)) for name in cli.COMMANDS if cli._exists(name)]\n"
        f"print('HEAVY', [name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []"


@pytest.mark.parametrize("name", [name for name in cli.COMMANDS if cli._exists(name)])
def test_every_command_explains_itself(name, capsys):
    assert cli.main([name, "--help"]) == 0
    assert "usage" in capsys.readouterr().out


def test_a_null_byte_in_a_file_of_settings_is_refused_by_name(tmp_path, capsys):
    spec = tmp_path / "spec.toml"
    for text, name in (
        ('shards = "a\\u0000b"\nout = "o"', "shards"),
        ('shards = "s"\nout = "o"\n[head]\nkind = "linear"\n[augment]\noff = ["cr\\u0000op"]', "augment.off"),
        ('shards = "s"\nout = "o"\n[uncertain]\n"a\\u0000" = "ones"', "uncertain"),
    ):
        spec.write_text(text)
        assert cli.main(["finetune", "--config", str(spec)]) == 2
        error = capsys.readouterr().err
        assert name in error and "null byte" in error and error.count("\n") == 1
