"""What tables made from predictions take together, and what they say of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from results.cells.options import Options
from results.collect import collect
from results.errors import InputError
from results.schema import read_predictions
from results.tables.registry import build
from tests.results import simulate

QUICK: dict[str, Any] = {"history": False, "intervals": False}
TWO = {"edema": 0.7, "cardiomegaly": 0.8}


def cells_of(table: Any, *names: str) -> dict[str, Any]:
    """Column name -> cell of the row that begins with these names."""
    line = next(place for place, held in enumerate(table.row_names) if held[: len(names)] == names)
    return dict(zip(table.column_names, table.cells[line], strict=True))


@pytest.fixture(scope="module")
def unequal(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pa.Table]:
    """Scratch with two labels and ImageNet with a third one, two seeds each, at two label fractions."""
    top = tmp_path_factory.mktemp("unequal")
    for init, labels in (("scratch", TWO), ("imagenet", {**TWO, "mass": 0.95})):
        for fraction in (0.1, 1.0):
            for seed in (0, 1):
                simulate.finetune(
                    top, labels=labels, init=init, seed=seed, label_fraction=fraction, people=True, **QUICK
                )
    return top, collect(top)[0]


def test_models_below_each_other_have_means_over_the_labels_that_all_have(unequal: tuple[Path, pa.Table]) -> None:
    _, results = unequal
    values = []
    chosen = [row for row in results.to_pylist() if (row["init"], row["label_fraction"]) == ("imagenet", 1.0)]
    for source in sorted({row["source"] for row in chosen}):
        rows = read_predictions(Path(source).with_name("predictions.parquet")).to_pylist()
        for label in TWO:
            own = [row for row in rows if row["split"] == "test" and row["label"] == label]
            values.append(np.mean([(row["y_score"] - row["y_true"]) ** 2 for row in own]))
    table = build("calibration", results, Options())
    assert cells_of(table, "ImageNet")["Brier score"].value == pytest.approx(np.mean(values))
    for name in ("calibration", "operating-points", "subgroups"):
        assert "left out: mass" in build(name, results, Options()).caption
    assert "Macro: mean over 2 labels" in " ".join(table.notes)


@pytest.mark.parametrize(("name", "title"), [("calibration", "Calibration"), ("operating-points", "Operating points")])
def test_a_table_over_labels_names_the_one_label_that_there_is(
    unequal: tuple[Path, pa.Table], tmp_path: Path, name: str, title: str
) -> None:
    simulate.finetune(tmp_path, labels={"edema": 0.7}, **QUICK)
    assert build(name, collect(tmp_path)[0], Options()).caption.startswith(f"{title} of edema. ")
    assert build(name, unequal[1], Options(label="edema")).caption.startswith(f"{title} of edema. ")
    assert build(name, unequal[1], Options()).caption.startswith(f"{title}, means over labels. ")


def test_label_fractions_that_are_asked_for_as_rows_are_all_shown(unequal: tuple[Path, pa.Table]) -> None:
    table = build("calibration", unequal[1], Options(rows=("label_fraction", "init")))
    assert [names[0] for names in table.row_names] == ["10 %", "10 %", "100 %", "100 %"]
    assert "Only the largest" not in " ".join(table.notes)


def test_an_operating_points_threshold_counts_seeds_and_not_labels(unequal: tuple[Path, pa.Table]) -> None:
    assert cells_of(build("operating-points", unequal[1], Options()), "Scratch")["Threshold"].n == 2


def test_subgroups_say_of_thresholds_what_holds_for_every_rule(unequal: tuple[Path, pa.Table]) -> None:
    notes = " ".join(build("subgroups", unequal[1], Options()).notes)
    assert "Thresholds are those of the runs, the same for every group." in notes and "validation" not in notes
    assert "Thresholds" not in " ".join(build("subgroups", unequal[1], Options(metric="auroc")).notes)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("operating-points", "were tested on different images of phantom"),
        ("calibration", "were tested on different images of phantom"),
        ("subgroups", "the seeds were tested on different images"),
    ],
)
def test_seeds_of_different_test_images_are_not_taken_together(tmp_path: Path, name: str, said: str) -> None:
    for seed in (0, 1):
        simulate.finetune(tmp_path, labels={"edema": 0.8}, seed=seed, data_seed=seed, people=True, **QUICK)
    with pytest.raises(InputError, match=said):
        build(name, collect(tmp_path)[0], Options(allow=("sets",)))


def test_a_calibration_without_intervals_does_not_call_several_seeds_one(tmp_path: Path) -> None:
    for seed in (0, 1):
        simulate.finetune(tmp_path, labels={"edema": 0.8}, seed=seed, n={"val": 60, "test": 9}, **QUICK)
    table = build("calibration", collect(tmp_path)[0], Options())
    assert all(cell is not None and cell.low is None for cell in table.cells[0])
    assert "Mean over seeds (n = 2), no interval." in table.caption and "One seed" not in table.caption


def test_thresholds_of_runs_of_several_configurations_are_refused_and_not_averaged(tmp_path: Path) -> None:
    for seed, rate in enumerate((0.1, 0.01)):
        simulate.finetune(tmp_path, labels={"edema": 0.8}, seed=seed, config={"lr": rate}, **QUICK)
    results = collect(tmp_path)[0]
    with pytest.raises(InputError, match="runs of 2 configurations fall into one cell; they differ in lr"):
        build("thresholds", results, Options())
    assert len(build("thresholds", results, Options(rows=("lr",))).row_names) == 2 * 5
    mixed = build("thresholds", results, Options(allow=("configs",)))
    assert len(mixed.row_names) == 5 and "averages runs that differ in more than their seed" in " ".join(mixed.notes)


def test_counts_are_of_single_labels_and_found_for_rows_of_a_configurations_key(tmp_path: Path) -> None:
    for rate in (0.1, 0.01):
        simulate.finetune(tmp_path, labels=TWO, config={"lr": rate}, **QUICK)
    results = collect(tmp_path)[0]
    table = build("metrics", results, Options(rows=("lr", "label")))
    assert cells_of(table, "0.1", "Edema")["TP"].value > 0 and cells_of(table, "0.1", "Macro mean")["TP"] is None
    means = build("metrics", results, Options(rows=("lr",), label="macro"))
    assert "TP" not in means.column_names, "a mean over labels of counts is no count"


def test_mean_sd_is_refused_where_there_are_no_means_of_runs(unequal: tuple[Path, pa.Table]) -> None:
    with pytest.raises(InputError, match="--style mean-sd: operating-points has no means of runs"):
        build("operating-points", unequal[1], Options(style="mean-sd"))


def test_mean_sd_replaces_the_sentence_on_intervals_of_what_labels_saved_prints(tmp_path: Path) -> None:
    for init, fractions in (("scratch", (0.1, 0.5, 1.0)), ("imagenet", (0.1,))):
        for fraction in fractions:
            for seed in range(3 if fraction == 1.0 else 2):
                simulate.finetune(tmp_path, labels=TWO, init=init, label_fraction=fraction, seed=seed, **QUICK)
    caption = build("labels-saved", collect(tmp_path)[0], Options(style="mean-sd")).caption
    assert "standard deviation over seeds (n = 2)" in caption and "95 % interval" not in caption


def test_differences_without_tests_speak_of_no_p(unequal: tuple[Path, pa.Table]) -> None:
    options = {"difference": "scratch", "labels": tuple(TWO)}
    assert "p Holm-corrected over 2 differences" in build("label-efficiency", unequal[1], Options(**options)).notes[-1]
    note = build("label-efficiency", unequal[1], Options(test=False, **options)).notes[-1]
    assert note.startswith("Differences: minus Scratch, on the same test set; intervals by") and "Holm" not in note
