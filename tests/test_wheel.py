"""The wheel holds what the command needs, and gives the command in an environment without this checkout."""

from __future__ import annotations

import os
import re
import site
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGES = ("jobs", "cxrdist", "shards", "slurm", "results")


def tracked(*endings: str) -> set[str]:
    """Files of the five packages with these endings, as the repository has them."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "--", *PACKAGES], capture_output=True, text=True, check=True
    )
    return {name for name in listed.stdout.splitlines() if name.endswith(endings)}


def test_the_version_is_the_same_in_the_project_its_citation_and_the_changelog() -> None:
    version = PROJECT["version"]
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^version: (.*)$", citation, re.MULTILINE)[1] == version  # type: ignore[index]
    assert re.search(r"^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == version  # type: ignore[index]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (found,) = folder.glob("*.whl")
    return found


@pytest.mark.slow
def test_the_wheel_holds_every_module_and_all_package_data_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == tracked("")
    assert any(name.startswith("jobs/specs/") and name.endswith(".toml") for name in names)


@pytest.mark.slow
def test_the_installed_wheel_gives_the_command(wheel: Path, tmp_path: Path) -> None:
    """In an environment of its own, which sees this one's libraries but not the checkout."""
    place = tmp_path / "env"
    venv.create(place, with_pip=False)
    (packages,) = place.glob("lib/python*/site-packages")
    install = ["install", "--quiet", "--no-deps", "--prefix", str(place), "--ignore-installed", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True, cwd=tmp_path)
    libraries = [folder for folder in {*site.getsitepackages(), *sys.path} if folder.endswith("site-packages")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(packages), *libraries]), "PYTHONSAFEPATH": "1"}
    command = place / "bin" / "cxrdist"
    for words in (["--version"], ["--help"], ["runs", str(tmp_path)], ["shard", "phantom", "--help"]):
        found = subprocess.run(
            [str(command), *words], capture_output=True, text=True, env=env, cwd=tmp_path, check=False
        )
        assert found.returncode == 0, (words, found.stderr)
        if words == ["--version"]:
            assert found.stdout.strip() == f"cxrdist {PROJECT['version']}"
    where = subprocess.run(
        [str(place / "bin" / "python"), "-c", "import results.run; print(results.run.__file__)"],
        capture_output=True, text=True, env=env, cwd=tmp_path, check=True,
    )  # fmt: skip
    assert Path(where.stdout.strip()).is_relative_to(packages)
