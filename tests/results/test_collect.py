"""Collecting runs in any state; nothing foreign or damaged stops it, nothing is counted twice."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import results
from jobs import cli
from results.collect import COLLECTED, collect, predictions_beside
from results.errors import InputError
from results.run import Run
from results.schema import METRICS, write_metrics
from tests.results import simulate


def runs_of(table: pa.Table) -> set[str]:
    return set(table["run"].to_pylist())


def test_all_runs_at_any_depth_are_found(study: Path, results: pa.Table) -> None:
    assert len(runs_of(results)) == 28
    assert results.schema.names == COLLECTED.names == [*METRICS.names, "source"]
    assert set(results["job"].to_pylist()) == {"finetune", "pretrain"}
    one, _ = collect(next(iter(sorted((study / "cells").iterdir()))))
    assert len(runs_of(one)) == 1


def test_collected_file_gives_the_same_table_again_and_runs_are_not_counted_twice(
    study: Path, results: pa.Table, tmp_path: Path
) -> None:
    written, _ = collect(study, tmp_path / "all.parquet")
    again, warnings = collect([tmp_path / "all.parquet", study])
    assert again.equals(results) and written.equals(results) and warnings == []


def test_state_of_every_unusable_run_is_named_and_the_rest_is_used(tmp_path: Path) -> None:
    good = simulate.finetune(tmp_path, seed=0, intervals=False)
    running = simulate.finetune(tmp_path, seed=1, intervals=False, done=False)
    torn = simulate.finetune(tmp_path, seed=2, intervals=False)
    torn.metrics.write_bytes(torn.metrics.read_bytes()[:500])
    empty = simulate.finetune(tmp_path, seed=3, intervals=False)
    shutil.rmtree(empty.results)
    foreign = simulate.finetune(tmp_path, seed=4, intervals=False)
    pq.write_table(pa.table({"a": [1]}), foreign.metrics)
    headless = simulate.finetune(tmp_path, seed=5, intervals=False)
    headless.info.unlink()
    damaged = simulate.finetune(tmp_path, seed=6, intervals=False)
    damaged.info.write_text("{")
    shutil.rmtree(damaged.results)
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / "beach.parquet").write_text("sand")
    os.symlink(tmp_path, tmp_path / "loop")
    table, warnings = collect(tmp_path)
    assert runs_of(table) == {str(good.path)}
    text = "\n".join(warnings)
    for run, reason in (
        (running, "not done yet"),
        (torn, "damaged"),
        (empty, "without results"),
        (foreign, "not a"),
        (headless, "no run.json"),
        (damaged, "damaged"),
    ):
        assert any(str(run.path) in line and reason in line for line in warnings), (reason, text)
    assert len(warnings) == 6, text


def test_a_done_run_whose_metrics_file_holds_no_rows_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = simulate.finetune(tmp_path, seed=0, intervals=False)
    empty = simulate.finetune(tmp_path, seed=1, intervals=False)
    write_metrics(empty.metrics, [])
    table, warnings = collect(tmp_path)
    assert runs_of(table) == {str(good.path)}
    assert len(warnings) == 1 and str(empty.path) in warnings[0] and "holds no rows" in warnings[0]
    assert cli.main(["collect", str(tmp_path), "--out", str(tmp_path / "all.parquet")]) == 0
    assert str(empty.path) in capsys.readouterr().err
    with pytest.raises(InputError, match="holds no rows"):
        collect(empty.path)


@pytest.mark.parametrize("words", [[""], [" "], ["runs", ""]])
def test_an_empty_path_does_not_mean_the_folder_where_one_stands(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    simulate.finetune(tmp_path / "runs", intervals=False)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["collect", *words, "--out", "all.parquet"]) == 2
    assert "empty" in capsys.readouterr().err and not Path("all.parquet").exists()
    for command in (["table", "label-efficiency"], ["plot", "label-efficiency"], ["report"]):
        assert cli.main([*command, *words, "--out", "made.md" if command[0] == "table" else "made.png"]) == 2
        assert "empty" in capsys.readouterr().err
    with pytest.raises(InputError, match="empty"):
        collect(words)


def test_runs_inside_a_sweeps_own_run_folder_are_found(tmp_path: Path) -> None:
    Run.create(tmp_path / "sweep", job="sweep", config={}, signature="0" * 12)
    inner = simulate.finetune(tmp_path / "sweep" / "cells", intervals=False)
    table, warnings = collect(tmp_path)
    assert runs_of(table) == {str(inner.path)} and warnings == []


def test_unfinished_runs_count_when_asked_for(tmp_path: Path) -> None:
    run = simulate.finetune(tmp_path, done=False, intervals=False)
    with pytest.raises(InputError, match="not done yet"):
        collect(tmp_path)
    table, _ = collect(tmp_path, unfinished=True)
    assert runs_of(table) == {str(run.path)}


def test_two_runs_of_one_signature_are_one_and_the_later_stays(tmp_path: Path) -> None:
    early = simulate.finetune(tmp_path / "a", intervals=False, created_at=datetime(2026, 1, 1, tzinfo=UTC))
    late = simulate.finetune(tmp_path / "b", intervals=False, created_at=datetime(2026, 2, 1, tzinfo=UTC))
    table, warnings = collect([tmp_path / "b", tmp_path / "a"])
    assert runs_of(table) == {str(late.path)}
    assert any(str(early.path) in line and "counted once" in line for line in warnings)


def test_numbers_that_differ_between_runs_of_one_signature_are_reported(tmp_path: Path) -> None:
    simulate.finetune(tmp_path / "a", intervals=False, created_at=datetime(2026, 1, 1, tzinfo=UTC))
    other = {"cardiomegaly": 0.6, "edema": 0.6}
    simulate.finetune(tmp_path / "b", intervals=False, labels=other, created_at=datetime(2026, 2, 1, tzinfo=UTC))
    _, warnings = collect(tmp_path)
    assert any("numbers differ between runs of one signature" in line for line in warnings)


def test_nan_in_a_metrics_file_becomes_undefined_with_a_note(tmp_path: Path) -> None:
    run = simulate.finetune(tmp_path, intervals=False)
    table = pq.read_table(run.metrics)
    nan = pa.array([float("nan")] * len(table))
    pq.write_table(table.set_column(table.column_names.index("value"), "value", nan), run.metrics)
    found, warnings = collect(tmp_path)
    assert found["value"].null_count == len(found) and "NaN or infinite" in warnings[0]


def test_file_and_runs_may_move_together(tmp_path: Path) -> None:
    simulate.finetune(tmp_path / "old" / "cells", intervals=False)
    collect(tmp_path / "old" / "cells", tmp_path / "old" / "all.parquet")
    (tmp_path / "old").rename(tmp_path / "new")
    table, _ = collect(tmp_path / "new" / "all.parquet")
    source = table["source"][0].as_py()
    assert source.startswith(str(tmp_path / "new")) and predictions_beside(source) is not None


def test_nothing_found_missing_paths_and_unwritable_outputs_are_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no results found"):
        collect(tmp_path)
    with pytest.raises(InputError, match="no such file or folder"):
        collect(tmp_path / "nowhere")
    simulate.finetune(tmp_path / "runs", intervals=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        collect(tmp_path / "runs", tmp_path / "file" / "all.parquet")


def test_load_gives_a_documented_data_frame(study: Path) -> None:
    frame = results.load(study)
    assert list(frame.columns) == COLLECTED.names
    best = frame[(frame.label == "macro") & (frame.metric == "auroc")].groupby("init").value.mean()
    assert best.idxmax() == "simclr:nih"
    document = Path(__file__).resolve().parents[2] / "docs" / "results.md"
    text = document.read_text(encoding="utf-8")
    assert [name for name in COLLECTED.names if f"`{name}`" not in text] == []
