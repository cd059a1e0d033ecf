"""`cxrdist collect`, `table`, `plot` and `report` as a user types them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import cli

ROOT = Path(__file__).resolve().parents[2]


def call(*words: object) -> int:
    return cli.main([str(word) for word in words]) or 0


@pytest.fixture(scope="module")
def collected(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("collected") / "results.parquet"
    assert call("collect", study, "--out", out) == 0
    return out


def test_collect_says_how_much_it_found(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("collect", study, "--out", tmp_path / "all.parquet") == 0
    assert f"{tmp_path / 'all.parquet'}: 1405 rows from 28 runs" in capsys.readouterr().out


def test_table_goes_to_stdout_or_to_a_file(collected: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("table", "label-efficiency", collected, "--metric", "auprc", "--digits", "2")
    assert call(*words) == 0
    text = capsys.readouterr().out
    assert text.startswith("**Macro AUPRC") and "| ImageNet |" in text
    assert call(*words, "--format", "latex", "--out", tmp_path / "table.tex") == 0
    assert r"\toprule" in (tmp_path / "table.tex").read_text(encoding="utf-8")


def test_table_takes_runs_as_they_lie(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("table", "cost", study / "cells", study / "pretrain", "--where", "init=scratch") == 0
    assert "Total" in capsys.readouterr().out


def test_plot_prints_the_caption(collected: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        call("plot", "per-class", collected, "--where", "label_fraction=1 init=scratch", "--out", tmp_path / "p.svg")
        == 0
    )
    assert "AUROC per pathology" in capsys.readouterr().out and (tmp_path / "p.svg").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("collect", "nowhere"), "no such file or folder"),
        (("table", "label-efficiency", "{file}", "--metric", "auc"), "the values are"),
        (("table", "label-efficiency", "{file}", "--where", "seed"), "is not column=value"),
        (("table", "label-efficiency", "{file}", "--digits", "-1"), "must be in [0, 17]"),
        (("table", "pie", "{file}"), "pie"),
        (("plot", "roc", "{file}", "--out", "figure.gif"), "must end in"),
        (("plot", "roc", "{file}", "--out", "/proc/figure.png"), "cannot write"),
        (("report", "nowhere"), "no such file or folder"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(
    words: tuple, message: str, collected: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    assert call(*(str(word).replace("{file}", str(collected)) for word in words)) == 2
    said = capfd.readouterr().err
    assert message in said and said.count("\n") == 1 and "Traceback" not in said


def test_table_and_collect_import_nothing_heavy(collected: Path, study: Path) -> None:
    code = (
        "import json, sys; from jobs import cli\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    assert not cli.main(words)\n"
        "    heavy = {'torch', 'ray', 'pandas', 'scipy', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
        "    print('imported', sorted(heavy), file=sys.stderr)\n"
    )
    tables = [("table", "label-efficiency", collected, *more) for more in (("--digits", "2"), ("--test", "false"))]
    words = json.dumps([[*map(str, each)] for each in (("collect", study, "--out", collected), *tables)])
    done = subprocess.run([sys.executable, "-c", code, words], capture_output=True, text=True, cwd=ROOT, check=True)
    found = [line.removeprefix("imported ") for line in done.stderr.splitlines() if line.startswith("imported ")]
    # intervals need Student's t, a twentieth of a second to import
    assert found == ["[]", "['scipy']", "['scipy']"], done.stderr
