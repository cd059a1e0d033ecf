"""The registry of tables is the only list of them: files, command line and documentation agree with it."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import get_args

from cxrdist.core.configs import hints
from jobs import table as command
from results import tables
from results.tables.registry import TABLES

SHARED = {"__init__", "differences", "latex", "pivot", "predicted", "registry", "render", "style", "table"}
"""Files of the folder that are no table."""


def test_every_file_of_the_folder_is_a_table_of_its_name_with_one_line_in_the_registry() -> None:
    files = {path.stem for path in Path(str(tables.__file__)).parent.glob("*.py")} - SHARED
    assert {f"results.tables.{name}" for name in files} == set(TABLES.values())
    for name, module in TABLES.items():
        assert module == f"results.tables.{name.replace('-', '_')}"
        assert callable(import_module(module).build)


def test_the_command_takes_its_choices_from_the_registry() -> None:
    assert get_args(hints(command.Config)["name"]) == tuple(TABLES)


def test_every_table_is_documented() -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "results.md").read_text(encoding="utf-8")
    section = text.partition("\n## Tables\n")[2].partition("\n## ")[0]
    assert [name for name in TABLES if f"\n| `{name}` |" not in section] == []
