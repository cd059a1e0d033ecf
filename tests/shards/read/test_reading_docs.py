"""The examples of docs/reading.md run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[3] / "docs" / "reading.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_runs_as_printed(number: int, make_set, tmp_path: Path) -> None:
    make_set(tmp_path / "nih256")
    done = subprocess.run(
        [sys.executable, "-c", EXAMPLES[number]], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_there_are_examples_of_both_public_readers() -> None:
    assert any("webdataset.WebDataset(" in example for example in EXAMPLES)
    assert any("ShardSet(" in example and "DataLoader(" in example for example in EXAMPLES)
