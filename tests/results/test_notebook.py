"""The example notebook's cells run from top to bottom on a study."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from results.collect import collect

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "results.ipynb"


def test_notebook_runs_on_a_collected_study(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    collect(study, tmp_path / "results.parquet")
    monkeypatch.setenv("CXRDIST_RESULTS", str(tmp_path / "results.parquet"))
    book = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    names: dict[str, object] = {}
    for cell in book["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [], "outputs are not committed"
            exec(compile(cell["source"], str(NOTEBOOK), "exec"), names)  # noqa: S102
    assert "simclr:nih" in capsys.readouterr().out
