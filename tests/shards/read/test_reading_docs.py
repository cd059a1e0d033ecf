"""The examples of docs/reading.md run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parents[3] / "docs" / "reading.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)


EACH = """
import os, runpy, sys, torch
for path in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        runpy.run_path(path, run_name="__main__")
        sys.exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        sys.exit(path)
"""
"""Runs each example in a process of its own; they share one import of torch, which takes longer than all of them."""


def test_the_examples_run_as_printed(make_set, tmp_path: Path) -> None:
    make_set(tmp_path / "nih256")
    for number, example in enumerate(EXAMPLES):
        (tmp_path / f"example{number}.py").write_text(example, encoding="utf-8")
    words = [sys.executable, "-c", EACH, *(f"example{number}.py" for number in range(len(EXAMPLES)))]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert EXAMPLES and done.returncode == 0, done.stderr


def test_there_are_examples_of_both_public_readers() -> None:
    assert any("webdataset.WebDataset(" in example for example in EXAMPLES)
    assert any("ShardSet(" in example and "DataLoader(" in example for example in EXAMPLES)
