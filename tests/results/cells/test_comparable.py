"""Macro means of runs with different labels: recomputed over common labels, checked by hand from the predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn import metrics as sk

from results.cells.display import LABEL_SETS
from results.cells.options import Options
from results.cells.select import label_names
from results.collect import collect, predictions_beside
from results.errors import InputError
from results.figures.registry import draw
from results.schema import METRICS, PREDICTIONS, read_metrics, read_predictions, write_metrics
from results.stats.scoring import metric_rows
from results.tables.registry import build
from results.tables.table import Table
from tests.results import simulate

GOOD, BAD = 0.95, 0.6


def runs(folder: Path, seed: int = 0, **labels: dict[str, float]) -> pa.Table:
    """One run for each name, with those labels, collected."""
    for init, held in labels.items():
        simulate.finetune(folder, init=init, labels=held, seed=seed, history=False)
    return collect(folder)[0]


def source_of(results: pa.Table, init: str) -> str:
    return next(row["source"] for row in results.to_pylist() if row["init"] == init)


def by_hand(source: str, labels: tuple[str, ...], repeats: np.ndarray | None = None) -> float:
    """Mean AUROC over labels, image by image from the predictions; `repeats` draws patients, in order of their name."""
    path = predictions_beside(source)
    assert path is not None
    rows = [row for row in read_predictions(path).to_pylist() if row["split"] == "test"]
    names = sorted({row["patient_id"] for row in rows})
    times = dict(zip(names, [1] * len(names) if repeats is None else repeats.tolist(), strict=True))
    values = []
    for label in labels:
        held = [row for row in rows if row["label"] == label and times[row["patient_id"]]]
        weight = [times[row["patient_id"]] for row in held]
        truth, score = ([row[name] for row in held] for name in ("y_true", "y_score"))
        values.append(sk.roc_auc_score(truth, score, sample_weight=weight))
    return float(np.mean(values))


def cells_of(table: Table) -> dict[str, Any]:
    (line,) = table.cells
    return dict(zip(table.column_names, line, strict=True))


def test_means_go_over_the_labels_that_all_runs_have(tmp_path: Path) -> None:
    results = runs(
        tmp_path,
        many={"edema": BAD, "mass": BAD, "hernia": GOOD},
        other={"edema": BAD, "mass": BAD, "nodule": GOOD},  # as many labels, not the same ones
        few={"edema": BAD, "mass": BAD},
    )
    table = build("label-efficiency", results, Options(test=False))
    for init, cell in cells_of(table).items():
        assert cell.value == pytest.approx(by_hand(source_of(results, init), ("edema", "mass")), abs=1e-6)
    assert "Means are over the 2 labels that every run has on phantom (left out: hernia and nodule)." in table.caption
    assert "Macro: mean over 2 labels." in table.notes and not any("Caution" in note for note in table.notes)
    stored = [row["value"] for row in results.to_pylist() if row["label"] == "macro" and row["metric"] == "auroc"]
    assert max(stored) - cells_of(table)["many"].value > 0.1, "the means as stored would have misled"


def test_a_mean_taken_again_has_the_interval_of_its_own_labels(tmp_path: Path) -> None:
    results = runs(tmp_path, many={"edema": BAD, "mass": BAD, "hernia": GOOD}, few={"edema": BAD, "mass": BAD})
    cell = cells_of(build("label-efficiency", results, Options(test=False)))["many"]
    source = source_of(results, "many")
    path = predictions_beside(source)
    assert path is not None
    kept = [row for row in read_predictions(path).to_pylist() if row["label"] != "hernia"]
    alone = metric_rows(pa.Table.from_pylist(kept, schema=PREDICTIONS), {})
    (again,) = [row for row in alone if (row["label"], row["metric"]) == ("macro", "auroc")]
    assert (cell.low, cell.high) == pytest.approx((again["ci_low"], again["ci_high"]), abs=1e-6)
    assert cell.interval == "patients"


def test_means_of_equal_labels_stay_as_the_runs_wrote_them(tmp_path: Path) -> None:
    results = runs(tmp_path, one={"edema": BAD, "mass": BAD}, two={"edema": GOOD, "mass": GOOD})
    table = build("label-efficiency", results, Options(test=False))
    for row in results.to_pylist():
        if row["label"] == "macro" and row["metric"] == "auroc":
            cell = cells_of(table)[row["init"]]
            assert (cell.value, cell.low, cell.high) == pytest.approx(
                (row["value"], row["ci_low"], row["ci_high"]), abs=1e-6
            )
    assert "Means are over" not in table.caption


def test_bold_is_decided_on_the_common_labels(tmp_path: Path) -> None:
    few = {"edema": GOOD, "mass": GOOD}
    for seed in range(3):
        results = runs(tmp_path, seed, all={"edema": BAD, "mass": BAD, "hernia": 0.99, "nodule": 0.99}, few=few)
    table = build("label-efficiency", results, Options())
    cells = cells_of(table)
    assert cells["few"].best and not cells["all"].best
    assert any(note.startswith("Bold: significantly better than every other") for note in table.notes)


def test_without_a_common_label_a_caution_stands_and_nothing_is_compared(tmp_path: Path) -> None:
    results = runs(tmp_path, one={"edema": GOOD}, two={"mass": BAD})
    table = build("label-efficiency", results, Options())
    assert any(note.startswith("Caution: on one test set the means go over different labels") for note in table.notes)
    assert any("means over different labels" in note for note in table.notes)
    assert not any(cell.best for cell in cells_of(table).values())


def test_a_file_with_means_alone_is_left_as_it_is_and_cautioned(tmp_path: Path) -> None:
    results = runs(tmp_path, one={"edema": GOOD, "mass": GOOD}, two={"edema": BAD})
    rows = [row for row in results.to_pylist() if row["label"] == "macro"]
    write_metrics(tmp_path / "means.parquet", [{k: row[k] for k in METRICS.names} for row in rows])
    table = build("label-efficiency", collect(tmp_path / "means.parquet")[0], Options())
    assert any("means go over different labels" in note for note in table.notes)


def test_a_run_without_any_value_takes_no_label_from_the_others(tmp_path: Path) -> None:
    results = runs(tmp_path, one={"edema": BAD, "mass": BAD}, two={"edema": BAD, "mass": GOOD}, lost={"edema": BAD})
    rows = read_metrics(source_of(results, "lost")).to_pylist()
    undefined = [row | ({"value": None, "n_labels": 0} if row["label"] == "macro" else {"value": None}) for row in rows]
    write_metrics(source_of(results, "lost"), undefined)
    cells = cells_of(build("label-efficiency", collect(tmp_path)[0], Options(test=False)))
    assert cells["lost"].value is None
    assert cells["one"].value == pytest.approx(by_hand(source_of(results, "one"), ("edema", "mass")), abs=1e-6)


def test_each_test_set_has_its_own_common_labels(tmp_path: Path) -> None:
    names = ("nih", "chexpert")
    simulate.finetune(tmp_path, train_dataset="nih", test_datasets=names, labels={"edema": BAD, "mass": GOOD})
    simulate.finetune(tmp_path, train_dataset="chexpert", test_datasets=("chexpert",), labels={"edema": BAD})
    table = build("transfer", collect(tmp_path)[0], Options(test=False))
    held = {(row[0].n, row[1].n if row[1] else 0) for row in table.cells if row[0]}
    assert held == {(1, 0), (1, 1)}
    kept = {cell.rows[0]["test_dataset"]: cell.rows[0]["n_labels"] for line in table.cells for cell in line if cell}
    assert kept == {"nih": 2, "chexpert": 1}
    assert "the 1 label that every run has on chexpert (left out: mass)" in table.caption


def test_missed_positives_are_counted_over_the_common_labels(tmp_path: Path) -> None:
    results = runs(tmp_path, many={"edema": BAD, "mass": BAD}, few={"edema": BAD})
    table = build("models", results, Options(test=False))
    place = table.column_names.index("False negatives")
    rows = {row["init"]: row for row in results.to_pylist() if (row["label"], row["metric"]) == ("edema", "fn")}
    for names, line in zip(table.row_names, table.cells, strict=True):
        row = rows[names[0]]
        cell = line[place]
        assert cell is not None and cell.text == f"{row['value']:.0f}/{row['n_pos']}"


def test_figures_take_the_means_over_common_labels_and_say_so(tmp_path: Path) -> None:
    results = runs(tmp_path, many={"edema": BAD, "mass": BAD, "hernia": GOOD}, few={"edema": BAD, "mass": BAD})
    drawing = draw("label-efficiency", results)
    assert "left out: hernia" in drawing.caption
    (axis,) = drawing.figure.get_axes()
    (line,) = [line for line in axis.get_lines() if line.get_label() == "many"]
    hand = by_hand(source_of(results, "many"), ("edema", "mass"))
    assert list(line.get_ydata()) == pytest.approx([hand], abs=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["confusion", "calibration", "threshold-sweep"])
def test_figures_of_labels_taken_together_use_those_that_every_run_has(name: str, tmp_path: Path) -> None:
    results = runs(tmp_path, many={"edema": BAD, "mass": BAD}, few={"edema": BAD})
    caption = draw(name, results).caption
    assert "Labels taken together: Edema, which every run has (left out: Mass)." in caption


def test_one_label_alone_is_named_and_not_called_a_mean(tmp_path: Path) -> None:
    results = runs(tmp_path, one={"pneumonia": BAD}, two={"pneumonia": GOOD})
    table = build("label-efficiency", results, Options(test=False))
    assert table.caption.startswith("AUROC of pneumonia by share of labels")
    assert not any("Macro" in note for note in table.notes)
    assert [names[0] for names in build("per-class", results, Options(test=False)).row_names] == ["Pneumonia"]


def test_runs_elsewhere_in_the_table_change_no_mean(tmp_path: Path) -> None:
    """A small fraction that lacks a label takes it from its own row's means, not from the others'."""
    many = {"edema": BAD, "mass": BAD, "hernia": GOOD}
    for init in ("one", "two"):
        simulate.finetune(tmp_path, init=init, labels=many, intervals=False, history=False)
    alone = build("label-efficiency", collect(tmp_path)[0], Options(test=False))
    simulate.finetune(tmp_path, init="one", label_fraction=0.01, labels={"edema": BAD}, intervals=False, history=False)
    simulate.finetune(tmp_path, init="two", label_fraction=0.01, labels=many, intervals=False, history=False)
    table = build("label-efficiency", collect(tmp_path)[0], Options(test=False))
    values = [[cell.value for cell in line if cell] for line in table.cells]
    assert values[1] == [cell.value for cell in alone.cells[0] if cell]
    assert table.row_titles[-1] == "Labels averaged" and [names[-1] for names in table.row_names] == ["1", "3"]
    assert "the 1 to 3 labels that every run of a row has on phantom (left out: hernia and mass)" in table.caption
    drawing = draw("label-efficiency", collect(tmp_path)[0])
    assert "the 1 label that every run has" in drawing.caption, "a line is read along its points too"


def test_labels_to_average_are_chosen_by_name_by_set_or_by_a_filter(tmp_path: Path) -> None:
    names = ("atelectasis", "cardiomegaly", "consolidation", "edema", "pleural_effusion", "hernia")
    for init, base in (("one", 0.6), ("two", 0.7)):
        labels = {name: base + 0.04 * place for place, name in enumerate(names)}
        simulate.finetune(tmp_path, init=init, labels=labels, intervals=False, history=False)
    results = collect(tmp_path)[0]
    for options, wanted in (
        (Options(labels=label_names(("chexpert5",)), test=False), names[:5]),
        (Options(labels=("edema", "hernia"), test=False), names[3::2]),
        (Options(where=("label=edema,hernia",), test=False), names[3::2]),
        (Options(where=("label=edema",), test=False), names[3:4]),
    ):
        table = build("label-efficiency", results, options)
        for init, cell in cells_of(table).items():
            assert cell.value == pytest.approx(by_hand(source_of(results, init), wanted), abs=1e-6)
        if len(wanted) == 2:
            assert "Means are over edema and hernia." in table.caption
    assert table.caption.startswith("AUROC of edema by share")
    rows = [
        names[0] for names in build("per-class", results, Options(labels=("hernia", "edema"), test=False)).row_names
    ]
    assert rows == ["Edema", "Hernia", "Macro mean"]
    filtered = build("per-class", results, Options(where=("label=hernia",), test=False))
    assert [names[0] for names in filtered.row_names] == ["Hernia"]
    for options, message in (
        (Options(labels=("shared",)), "no results for the label shared; there are atelectasis"),
        (Options(labels=("mass",)), "the sets chexpert5, shared,"),
        (Options(labels=("edema", "hernia"), label="edema"), "leave out the choice of several"),
    ):
        with pytest.raises(InputError, match=message):
            build("label-efficiency", results, options)


def test_a_run_that_lacks_a_chosen_label_has_no_mean_over_them(tmp_path: Path) -> None:
    results = runs(tmp_path, many={"edema": BAD, "mass": BAD}, few={"edema": BAD})
    table = build("label-efficiency", results, Options(labels=("edema", "mass"), test=False))
    assert cells_of(table)["few"].value is None and cells_of(table)["many"].value is not None
    assert any("has no value for all the labels asked for (lacking: mass)" in note for note in table.notes)
    few = runs(tmp_path / "few", few={"edema": BAD}, mass={"mass": BAD})
    with pytest.raises(InputError, match="no run has a value for all of the labels edema, mass.*edema, mass"):
        build("label-efficiency", few, Options(labels=("edema", "mass")))


def test_the_named_sets_are_those_of_the_label_table() -> None:
    from shards import labels

    assert LABEL_SETS["chexpert5"] == labels.LABEL_SETS["chexpert_competition"]
    assert LABEL_SETS["shared"] == labels.LABEL_SETS["shared_nih_chexpert"]
    assert all(LABEL_SETS[name] == held for name, held in labels.LABEL_SETS.items() if name in LABEL_SETS)
