"""The command refuses to run with another package in place of one of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cxrdist import start

BEGIN = "import sys; from cxrdist.start import main; sys.exit(main())"


def begun(*words: str, before: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Start the command as its script does, with a folder before ours on Python's path."""
    path = os.pathsep.join([*([str(before)] if before else []), str(start.HOME)])
    return subprocess.run(
        [sys.executable, "-c", BEGIN, *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"},
        check=False,
    )


@pytest.mark.parametrize("name", start.PACKAGES)
def test_a_package_of_the_same_name_before_ours_is_told_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("raise RuntimeError('imported')\n")
    found = begun("--help", before=tmp_path)
    assert found.returncode == 2 and found.stderr.count("\n") == 1
    assert f"{tmp_path / name} shadows the package {name} of cxrdist" in found.stderr


def test_a_single_file_of_the_same_name_is_told_too(tmp_path: Path) -> None:
    (tmp_path / "slurm.py").write_text("")
    found = begun("--help", before=tmp_path)
    assert found.returncode == 2 and f"{tmp_path / 'slurm.py'} shadows the package slurm" in found.stderr


def test_without_strangers_the_command_runs() -> None:
    found = begun("--help")
    assert found.returncode == 0 and "usage: cxrdist COMMAND" in found.stdout


def test_other_distributions_with_a_package_of_ours_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    owners = {"jobs": ["cxrdist", "python-jobs"], "slurm": ["cxrdist"], "numpy": ["numpy"]}
    monkeypatch.setattr(start.metadata, "packages_distributions", lambda: owners)
    assert start.shared() == ["python-jobs installs a package jobs too; install cxrdist in an environment of its own"]
