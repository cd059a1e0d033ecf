"""The registry of figures is the only list of them: files, command line and documentation agree with it."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import get_args

from cxrdist.core.configs import hints
from jobs import plot as command
from results import figures
from results.figures.registry import FIGURES

SHARED = {"__init__", "bands", "label_curves", "panels", "registry", "score_curves", "scores", "style"}
"""Files of the folder that are no figure."""


def test_every_file_of_the_folder_is_a_figure_of_its_name_with_one_line_in_the_registry() -> None:
    files = {path.stem for path in Path(str(figures.__file__)).parent.glob("*.py")} - SHARED
    assert {f"results.figures.{name}" for name in files} == set(FIGURES.values())
    for name, module in FIGURES.items():
        assert module == f"results.figures.{name.replace('-', '_')}"
        assert callable(import_module(module).draw)


def test_the_command_takes_its_choices_from_the_registry() -> None:
    assert get_args(hints(command.Config)["name"]) == tuple(FIGURES)


def test_every_figure_is_documented() -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "results.md").read_text(encoding="utf-8")
    section = text.partition("\n## Figures\n")[2].partition("\n## ")[0]
    assert [name for name in FIGURES if f"\n`{name}`" not in section] == []
