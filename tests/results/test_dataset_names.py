"""Two shard sets of one name and different content are never one test set; the same content is."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from results.cells.options import Options
from results.collect import collect, write_collected
from results.dataset_names import distinct_names, in_run
from results.schema import ADDED, METRICS, read_metrics, write_metrics
from results.stats.predictions import ScoreMatrix, load_scores
from results.tables.registry import build
from tests.results import simulate

ONE, TWO = "1" * 64, "2" * 64


def cells_of(folder: Path) -> list[tuple[int, str]]:
    table = build("label-efficiency", collect(folder)[0], Options(test=False))
    return [(cell.n, str(cell.rows[0]["test_dataset"])) for line in table.cells for cell in line if cell]


def test_runs_tested_on_two_sets_of_one_name_are_not_averaged(tmp_path: Path) -> None:
    for seed in range(4):
        simulate.finetune(tmp_path / "runs", seed=seed, intervals=False, test_dataset_hash=ONE if seed < 2 else TWO)
    assert sorted(cells_of(tmp_path / "runs")) == [(2, "phantom@11111111"), (2, "phantom@22222222")]
    for seed in range(2):
        simulate.finetune(tmp_path / "same", seed=seed, intervals=False, test_dataset_hash=ONE)
    assert cells_of(tmp_path / "same") == [(2, "phantom")], "one content needs no hash behind its name"


def test_sets_are_told_apart_across_the_columns_that_name_them() -> None:
    rows = [
        {"train_dataset": "nih", "train_dataset_hash": ONE, "test_dataset": "nih", "test_dataset_hash": TWO},
        {"train_dataset": "nih", "train_dataset_hash": None, "test_dataset": "own", "test_dataset_hash": ONE},
    ]
    told = distinct_names(pa.Table.from_pylist(rows, schema=METRICS))
    assert told["train_dataset"].to_pylist() == ["nih@11111111", "nih"], "what recorded no hash keeps its name"
    assert told["test_dataset"].to_pylist() == ["nih@22222222", "own"]
    assert distinct_names(told).equals(told)


def test_a_run_s_predictions_are_found_by_content(tmp_path: Path) -> None:
    """A run that was tested on its own set and on another of that name holds the second as NAME@HASH."""
    run = simulate.finetune(tmp_path, intervals=False, test_datasets=("nih", "nih@22222222"), train_dataset="nih")
    rows = read_metrics(run.metrics).to_pylist()
    for row in rows:
        row["test_dataset_hash"] = TWO if "@" in row["test_dataset"] else ONE
    write_metrics(run.metrics, rows)
    table, _ = collect(tmp_path)
    assert set(table["test_dataset"].to_pylist()) == {"nih@11111111", "nih@22222222"}
    for content, stored in ((ONE, "nih"), (TWO, "nih@22222222")):
        shown = next(row for row in table.to_pylist() if row["test_dataset_hash"] == content)
        panel = load_scores(shown["source"], shown["test_dataset"], content)
        assert isinstance(panel, ScoreMatrix) and panel.dataset == stored
    alone = table.filter(pa.array([found == TWO for found in table["test_dataset_hash"].to_pylist()]))
    assert in_run("nih", TWO, ["nih", "nih@22222222"]) == "nih@22222222", "alone in a table it has its plain name"
    assert set(distinct_names(alone)["test_dataset"].to_pylist()) == {"nih"}
    write_collected(tmp_path / "all.parquet", table)
    again, _ = collect(tmp_path / "all.parquet")
    assert again.equals(table)


def test_initialisations_from_before_there_was_a_choice_of_methods_are_simclrs(tmp_path: Path) -> None:
    for init, dataset in (("scratch", None), ("simclr:nih", "nih")):
        run = simulate.finetune(tmp_path / "runs", init=init, pretrain_dataset=dataset, intervals=False)
        table = pq.read_table(run.metrics).drop_columns(list(ADDED[4]))
        old = {**table.schema.metadata, b"cxrdist.schema_version": b"3"}
        pq.write_table(table.replace_schema_metadata(old), run.metrics)
    simulate.pretrain(tmp_path / "runs")
    rows = collect(tmp_path / "runs")[0].to_pylist()
    assert {(row["job"], row["init"], row["method"]) for row in rows} == {
        ("finetune", "scratch", None),
        ("finetune", "simclr:nih", "simclr"),
        ("pretrain", "scratch", "simclr"),
    }


@pytest.mark.parametrize("collected", [False, True])
def test_files_of_the_first_version_load_with_the_later_columns_empty(collected: bool, tmp_path: Path) -> None:
    run = simulate.finetune(tmp_path / "runs", intervals=False)
    path = run.metrics
    if collected:
        path = tmp_path / "all.parquet"
        collect(tmp_path / "runs", path)
    table = pq.read_table(path).drop_columns(list(ADDED[2]))
    old = {**table.schema.metadata, b"cxrdist.schema_version": b"1"}
    pq.write_table(table.replace_schema_metadata(old), path)
    found, warnings = collect(path if collected else tmp_path / "runs")
    assert warnings == [] and found["value"].null_count < len(found)
    assert all(found[name].null_count == len(found) for name in ADDED[2] if name != "config")
    assert found["config"].null_count == 0, "it is read from the run's folder"
