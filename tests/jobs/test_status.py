"""What `cxrdist status` says of runs on this machine, which no scheduler knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs import cli
from results.run import Run


def said(run: Run, capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(["status", str(run.path)]) == 0
    return capsys.readouterr().out.removeprefix(str(run.path))


def test_a_run_is_running_stopped_or_complete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = {"epochs": 10, "global_batch": 16}
    run = Run.create(tmp_path / "run", job="pretrain", config=config, signature="0" * 12, command=["test"])
    assert "not submitted" in said(run, capsys)
    run.log(111, epoch=10.1, loss=0.5)  # logged epochs have few digits: ten of them would be 110 steps
    with run.alone():
        text = said(run, capsys)
        assert "running here" in text and "step 111/111" in text
    assert "stopped" in said(run, capsys)
    run.finish(steps=111)
    text = said(run, capsys)
    assert "done" in text and "step 111/111" in text and "stopped" not in text
