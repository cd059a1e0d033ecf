"""Paper tables: what is in a cell, what is bold, what is refused, and that every format can be read."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from results import configs
from results.cells.options import Options, filters, words
from results.collect import collect, predictions_beside
from results.errors import InputError
from results.schema import PREDICTIONS, read_metrics, read_predictions, write_metrics, write_predictions
from results.stats.metrics import compute, pick_threshold
from results.tables.registry import build
from results.tables.render import FORMATS, Table, render
from tests.results import simulate


def lines(table: Table) -> dict[tuple[str, ...], dict[str, Any]]:
    """Row names -> column name -> cell."""
    return {
        names: dict(zip(table.column_names, cells, strict=True))
        for names, cells in zip(table.row_names, table.cells, strict=True)
    }


THRICE = {"seeds": (0, 1, 2)}
"""As arguments of `grid`: three seeds, so that runs are tested."""


def grid(folder: Path, **inits: dict) -> pa.Table:
    """Runs by name, one seed unless the arguments say otherwise, collected."""
    for init, arguments in inits.items():
        more = {name: value for name, value in arguments.items() if name != "seeds"}
        for seed in arguments.get("seeds", (0,)):
            simulate.finetune(folder, init=init, seed=seed, history=False, **more)
    return collect(folder)[0]


def test_cell_is_the_mean_over_seeds_with_an_interval_over_patients_and_seeds(results: pa.Table) -> None:
    table = build("label-efficiency", results, Options(test=False))
    cell = lines(table)["10 %", "100"]["ImageNet"]
    chosen = results.filter(
        (pc.field("init") == "imagenet")
        & (pc.field("label_fraction") == 0.1)
        & (pc.field("label") == "macro")
        & (pc.field("metric") == "auroc")
    )
    values = chosen["value"].to_numpy()
    assert cell.n == 3 and cell.interval == "both" and cell.value == pytest.approx(values.mean())
    one = chosen.to_pylist()[0]
    assert cell.high - cell.low > 0.6 * (one["ci_high"] - one["ci_low"]), "patients stay in it, however alike the seeds"
    assert "Mean over seeds (n = 3) with its 95 % interval, which covers both test patients and seeds" in table.caption
    assert "split official, label policy ones/zeros" in table.caption


def test_rows_and_columns_stand_in_a_readers_order(results: pa.Table) -> None:
    table = build("label-efficiency", results, Options(test=False))
    assert table.column_names == ("Scratch", "ImageNet", "simclr:nih")
    assert [names[0] for names in table.row_names] == ["1 %", "10 %", "100 %"]


def test_clear_winner_is_bold_and_equals_are_not(tmp_path: Path) -> None:
    good, bad = {"edema": 0.95, "mass": 0.95}, {"edema": 0.6, "mass": 0.6}
    clear = build(
        "label-efficiency",
        grid(tmp_path / "a", winner=THRICE | {"labels": good}, loser=THRICE | {"labels": bad}),
        Options(),
    )
    (row,) = lines(clear).values()
    assert row["winner"].best and not row["loser"].best
    assert any(note.startswith("Bold: significantly better than every other cell") for note in clear.notes)
    even = build(
        "label-efficiency", grid(tmp_path / "b", one=THRICE | {"labels": bad}, two=THRICE | {"labels": bad}), Options()
    )
    assert not any(cell.best for cell in lines(even).popitem()[1].values())
    assert any(note.startswith("Nothing is bold") for note in even.notes)
    assert "**" not in render(even, "markdown").split("\n", 1)[1]


def test_winner_must_beat_every_other_and_not_only_the_worst(tmp_path: Path) -> None:
    good, bad = {"edema": 0.9}, {"edema": 0.55}
    table = build(
        "label-efficiency",
        grid(tmp_path, **{name: THRICE | {"labels": held} for name, held in (("a", good), ("b", good), ("c", bad))}),
        Options(),
    )
    assert not any(cell.best for cell in lines(table).popitem()[1].values())


def test_without_predictions_nothing_is_bold_and_the_note_says_why(tmp_path: Path) -> None:
    results = grid(tmp_path, winner={"labels": {"edema": 0.95}}, loser={"labels": {"edema": 0.6}})
    for source in set(results["source"].to_pylist()):
        path = predictions_beside(source)
        assert path is not None
        path.unlink()
    table = build("label-efficiency", results, Options())
    assert not any(cell.best for cell in lines(table).popitem()[1].values())
    assert any("predictions not found" in note for note in table.notes)


def test_runs_tested_on_different_images_are_not_compared(tmp_path: Path) -> None:
    first = grid(tmp_path / "a", winner={"labels": {"edema": 0.95}})
    second = grid(tmp_path / "b", loser={"labels": {"edema": 0.6}, "n": {"val": 120, "test": 150}})
    table = build("label-efficiency", pa.concat_tables([first, second]), Options())
    assert not any(cell.best for cell in lines(table).popitem()[1].values())
    assert any("different images" in note for note in table.notes)


def test_many_tests_are_corrected(tmp_path: Path) -> None:
    labels = {"edema": 0.9, "mass": 0.9, "nodule": 0.9}
    worse = {name: 0.6 for name in labels}
    table = build(
        "per-class", grid(tmp_path, good=THRICE | {"labels": labels}, bad=THRICE | {"labels": worse}), Options()
    )
    (note,) = [note for note in table.notes if note.startswith("Bold")]
    assert "paired t test by patient and seed" in note and "Holm-corrected over 4 comparisons" in note
    assert [names[0] for names in table.row_names] == ["Edema", "Mass", "Nodule", "Macro mean"]
    assert table.row_titles == ("Pathology", "Positives")


def test_one_seed_shows_the_patient_interval_and_says_so(tmp_path: Path) -> None:
    results = grid(tmp_path, one={}, two={})
    table = build("label-efficiency", results, Options(test=False))
    assert "One seed; 95 % interval over test patients, for this trained model" in table.caption
    (cells,) = lines(table).values()
    chosen = results.filter((pc.field("label") == "macro") & (pc.field("metric") == "auroc"))
    assert cells["one"].interval == "patients"
    assert sorted(cell.low for cell in cells.values()) == pytest.approx(sorted(chosen["ci_low"].to_pylist()))


def test_one_seed_is_never_bold_and_the_note_says_why(tmp_path: Path) -> None:
    good, bad = {"edema": 0.97}, {"edema": 0.6}
    for folder, seeds in (("a", (0,)), ("b", (0, 1, 2))):  # one seed on either side is enough
        grid(tmp_path / folder, loser={"labels": bad, "seeds": seeds})
        table = build("label-efficiency", grid(tmp_path / folder, winner={"labels": good}), Options())
        assert not any(cell.best for cell in lines(table).popitem()[1].values())
        assert "Nothing is bold. Cells of one seed are not tested" in " ".join(table.notes)
    grid(tmp_path / "c", scratch={"labels": bad})
    results = grid(tmp_path / "c", other={"labels": good})
    table = build("ablation", results, Options(rows=("init",), reference="scratch"))
    assert lines(table)[("other",)]["p"].text == "< 0.001" and not lines(table)[("other",)]["Difference"].best
    assert any("two trained models" in note for note in table.notes)


def test_few_patients_have_no_interval_no_test_and_a_mark(tmp_path: Path) -> None:
    arms = {"winner": {"labels": {"edema": 0.99}}, "loser": {"labels": {"edema": 0.5}}}
    results = grid(tmp_path, **{init: THRICE | held | {"n": {"val": 120, "test": 9}} for init, held in arms.items()})
    table = build("label-efficiency", results, Options())
    for cell in lines(table).popitem()[1].values():
        assert cell.few and cell.low is None and not cell.best
    assert any(
        note.startswith("\u2021: no interval and no test (2 cells): fewer than 3 patients") for note in table.notes
    )
    assert render(table, "markdown").count("\u2021 |") == 2 and r"\textsuperscript{\ddag}" in render(table, "latex")
    assert "too few patients" in render(table, "csv")
    rows = [row for row in results.to_pylist() if row["metric"] == "auroc"]
    assert {row["ci_low"] for row in rows} == {None}, "nor does the run write one"


def test_two_seeds_have_the_interval_of_both_variances(tmp_path: Path) -> None:
    table = build("label-efficiency", grid(tmp_path, two={"seeds": (0, 1)}), Options(test=False))
    cell = next(cell for line in table.cells for cell in line if cell is not None)
    assert cell.n == 2 and cell.interval == "both"
    assert "Mean over seeds (n = 2) with its 95 % interval, which covers both" in table.caption


def test_without_predictions_stored_intervals_are_widened_by_the_seeds(tmp_path: Path) -> None:
    results = grid(tmp_path, one=THRICE)
    with_predictions = build("label-efficiency", results, Options(test=False)).cells[0][0]
    for source in set(results["source"].to_pylist()):
        path = predictions_beside(source)
        assert path is not None
        path.unlink()
    without = build("label-efficiency", results, Options(test=False)).cells[0][0]
    assert with_predictions is not None and without is not None and without.interval == "both"
    assert without.low is not None and without.high is not None
    assert with_predictions.low is not None and with_predictions.high is not None
    assert without.high - without.low >= 0.95 * (with_predictions.high - with_predictions.low)


def test_cells_with_one_seed_among_several_are_marked(tmp_path: Path) -> None:
    table = build("label-efficiency", grid(tmp_path, many={"seeds": (0, 1, 2)}, once={}), Options(test=False))
    text = render(table, "markdown")
    assert text.count("]\u2020") == 1 and "\u2020 one seed, 95 % interval over test patients" in table.caption


def test_missing_cells_are_shown_and_counted(tmp_path: Path) -> None:
    grid(tmp_path, one={"label_fraction": 0.1}, two={"label_fraction": 0.1})
    table = build("label-efficiency", grid(tmp_path, one={"label_fraction": 1.0}), Options())
    assert lines(table)["100 %", "1000"]["two"] is None
    assert "\u2013: no finished run (1 cell)." in table.notes
    assert "| \u2013 |" in render(table, "markdown") and " -- " in render(table, "latex")
    assert list(csv.DictReader(io.StringIO(render(table, "csv"))))[-1]["text"] == "missing"


def test_undefined_values_are_named_and_left_out_of_the_mean(tmp_path: Path) -> None:
    results = grid(tmp_path, one={"seeds": (0, 1)}, two={})
    values = results["value"].to_pylist()
    for place, row in enumerate(results.select(["init", "seed", "label", "metric"]).to_pylist()):
        if row["metric"] == "auroc" and row["label"] == "macro" and (row["init"] == "two" or row["seed"] == 1):
            values[place] = None
    results = results.set_column(results.column_names.index("value"), "value", pa.array(values, pa.float64()))
    table = build("label-efficiency", results, Options())
    (cells,) = lines(table).values()
    assert cells["two"].value is None and cells["one"].n == 1
    assert "undefined" in render(table, "latex")
    assert "1 cell averages only the seeds for which the value is defined." in table.notes


@pytest.mark.parametrize(
    ("column", "change", "allow", "message"),
    [
        ("split_scheme", {"split_scheme": "list"}, "splits", "several split schemes"),
        (
            "label_policy",
            {"label_policy": "zeros/zeros", "n": {"val": 120, "test": 150}},
            "policies",
            "several label policies",
        ),
    ],
)
def test_mixed_schemes_and_policies_are_refused_unless_asked_for(
    tmp_path: Path, column: str, change: dict, allow: str, message: str
) -> None:
    results = grid(tmp_path, one={}, two=change)
    with pytest.raises(InputError, match=f"{message}.*--allow {allow}"):
        build("label-efficiency", results, Options())
    table = build("label-efficiency", results, Options(allow=(allow,)))
    assert len(table.row_names) == 2, "what was mixed becomes a row and is not averaged"
    one = build("label-efficiency", results, Options(where=(f"{column}={next(iter(change.values()))}",)))
    assert one.column_names == ("two",)


def test_two_runs_of_one_seed_in_a_cell_are_refused_with_what_differs(tmp_path: Path) -> None:
    results = grid(tmp_path, one={"config": {"n_boot": 100}, "git_commit": "a" * 7})
    results = grid(tmp_path, one={"config": {"n_boot": 200}, "git_commit": "b" * 7})
    with pytest.raises(InputError, match=r"share seed 0.*git_commit: [ab]{7} and [ab]{7}.*--allow seeds"):
        build("label-efficiency", results, Options())
    assert build("label-efficiency", results, Options(allow=("seeds",))).cells[0][0].n == 2  # type: ignore[union-attr]


def test_axis_that_varies_inside_a_cell_becomes_a_row_or_is_refused(tmp_path: Path) -> None:
    grid(tmp_path, one={"mode": "linear"})
    results = grid(tmp_path, one={"mode": "full"})
    assert build("label-efficiency", results, Options()).row_titles[0] == "Mode"
    with pytest.raises(InputError, match="mode takes 2 values"):
        build("label-efficiency", results, Options(rows=("label_fraction",)))
    assert len(build("label-efficiency", results, Options(rows=("label_fraction",), where=("mode=full",))).cells) == 1


def test_encoders_of_one_name_but_different_runs_are_kept_apart(tmp_path: Path) -> None:
    grid(tmp_path, **{"simclr:nih": {"init_signature": "a" * 12}})
    results = grid(tmp_path, **{"simclr:nih": {"init_signature": "b" * 12}})
    assert build("label-efficiency", results, Options()).column_names == ("simclr:nih (aaaaaa)", "simclr:nih (bbbbbb)")


def test_unequal_labelled_subsets_are_cautioned(tmp_path: Path) -> None:
    results = grid(tmp_path, one={"fraction_hash": "x"}, two={"fraction_hash": "y"})
    assert any("did not see the same labelled images" in note for note in build("label-efficiency", results).notes)


def test_transfer_compares_down_a_test_set(tmp_path: Path) -> None:
    for train in ("nih", "chexpert"):
        simulate.finetune(tmp_path, train_dataset=train, test_datasets=("nih", "chexpert"), init="simclr:nih")
    table = build("transfer", collect(tmp_path)[0], Options())
    assert table.column_names == ("chexpert", "nih") and table.row_titles == ("Training set",)
    assert all(cell is not None for line in table.cells for cell in line)
    assert "Test sets: chexpert" in table.caption


def test_models_table_counts_what_was_missed(tmp_path: Path) -> None:
    results = grid(tmp_path, one={"labels": {"pneumonia": 0.9}})
    table = build("models", results, Options())
    (cells,) = lines(table).values()
    misses = results.filter((pc.field("label") == "pneumonia") & (pc.field("metric") == "fn"))
    assert cells["False negatives"].text == f"{misses['value'][0].as_py():.0f}/{misses['n_pos'][0].as_py()}"
    assert cells["Parameters"].text == "11.18 M"
    assert {"Balanced accuracy", "Sensitivity", "Specificity"} <= set(table.column_names)


def test_metrics_table_holds_the_metrics_and_counts_of_a_run(tmp_path: Path) -> None:
    results = grid(tmp_path, one={"labels": {"pneumonia": 0.9}})
    table = build("metrics", results, Options())
    (cells,) = lines(table).values()
    held = {row["metric"]: row for row in results.to_pylist() if row["label"] == "pneumonia"}
    titles = {"Accuracy": "accuracy", "Precision": "precision", "Sensitivity": "recall", "Specificity": "specificity"}
    titles |= {"F1": "f1", "AUROC": "auroc", "AUPRC": "auprc"}
    assert set(table.column_names) == {*titles, "TP", "FP", "TN", "FN"}
    for title, metric in titles.items():
        assert cells[title].value == pytest.approx(held[metric]["value"]) and cells[title].low is not None
    for name in ("tp", "fp", "tn", "fn"):
        assert cells[name.upper()].text == f"{held[name]['value']:.0f}"


def test_metrics_table_has_a_row_for_each_label_and_counts_are_means_over_seeds(tmp_path: Path) -> None:
    results = grid(tmp_path, one={"labels": {"edema": 0.9, "mass": 0.7}, **THRICE})
    rows = lines(build("metrics", results, Options()))
    counts = results.filter((pc.field("label") == "edema") & (pc.field("metric") == "tp"))["value"].to_pylist()
    edema = next(cells for names, cells in rows.items() if "Edema" in names)
    assert len(counts) == 3 and edema["TP"].value == pytest.approx(sum(counts) / 3)
    assert len(rows) == 3, "two labels and their mean"


def test_metrics_table_of_studies_says_that_its_counts_are_of_studies(tmp_path: Path) -> None:
    results = grid(tmp_path, one={"labels": {"edema": 0.9}, "levels": ("study",)})
    table = build("metrics", results, Options())
    cells = lines(table).popitem()[1]
    row = next(row for row in results.to_pylist() if row["label"] == "edema" and row["metric"] == "tp")
    assert row["level"] == "study" and cells["TP"].value == row["value"]
    assert "TP, FP, TN, FN: studies at the threshold (means over seeds)." in table.notes


def test_thresholds_table_gives_each_rule_on_test_as_the_predictions_do(tmp_path: Path) -> None:
    results = grid(tmp_path, one={"labels": {"edema": 0.85}})
    rows = lines(build("thresholds", results, Options()))
    predicted = read_predictions(next(tmp_path.rglob("predictions.parquet"))).to_pylist()
    split = {
        name: (np.array([row["y_true"] for row in own]), np.array([row["y_score"] for row in own], np.float64))
        for name in ("val", "test")
        if (own := [row for row in predicted if row["split"] == name])
    }
    assert len(rows) == 5
    for names, cells in rows.items():
        rule = {"fixed at 0.5": "0.5", "sensitivity at least 0.9": "sensitivity=0.9"}.get(
            names[-1], names[-1].removeprefix("highest ").replace(" ", "_")
        )
        threshold = pick_threshold(*split["val"], rule)
        expected = compute(*split["test"], threshold)
        assert cells["Threshold"].value == threshold
        for title, metric in (("Accuracy", "accuracy"), ("Sensitivity", "recall"), ("F1", "f1")):
            assert cells[title].value == pytest.approx(expected[metric])
    own = next(row["threshold"] for row in results.to_pylist() if row["metric"] == "recall" and row["label"] == "edema")
    assert next(c for n, c in rows.items() if n[-1] == "highest balanced accuracy")["Threshold"].value == own


def test_thresholds_without_predictions_are_refused(tmp_path: Path) -> None:
    results = grid(tmp_path, one={"labels": {"edema": 0.85}})
    next(tmp_path.rglob("predictions.parquet")).unlink()
    with pytest.raises(InputError, match="thresholds are computed from the runs' predictions"):
        build("thresholds", results, Options())


def test_ablation_gives_differences_to_the_full_recipe_with_corrected_p(tmp_path: Path) -> None:
    strong, weak = {"edema": 0.95}, {"edema": 0.6}
    for seed in range(3):
        simulate.finetune(tmp_path, labels=strong, seed=seed)
        simulate.finetune(tmp_path, labels=weak, seed=seed, variant="augment.blur=false")
        simulate.finetune(tmp_path, labels=strong, seed=seed, variant="head.width=64")
    table = build("ablation", collect(tmp_path)[0], Options())
    rows = lines(table)
    assert [names[0] for names in table.row_names] == ["full recipe", "augment.blur=false", "head.width=64"]
    blur = rows[("augment.blur=false",)]
    base = rows[("full recipe",)]["AUROC"].value
    assert blur["Difference"].value == pytest.approx(blur["AUROC"].value - base)
    assert blur["Difference"].best and blur["p"].text == "< 0.001"
    assert not rows[("head.width=64",)]["Difference"].best
    assert "paired t test by patient and seed" in table.notes[0]


def test_ablation_without_variants_says_what_to_do(results: pa.Table) -> None:
    with pytest.raises(InputError, match="name another axis with --rows"):
        build("ablation", results, Options())
    table = build("ablation", results, Options(rows=("init",), reference="scratch", test=False))
    assert table.row_names[0][-1] == "Scratch"


def test_peak_accuracy_chooses_on_validation(tmp_path: Path) -> None:
    results = grid(tmp_path, one={"label_fraction": 0.1, "labels": {"edema": 0.95}})
    results = grid(tmp_path, one={"label_fraction": 1.0, "labels": {"edema": 0.6}})
    table = build("peak-accuracy", results, Options())
    assert any("chosen on validation images" in note for note in table.notes)
    best = results.filter(
        (pc.field("label") == "edema") & (pc.field("metric") == "accuracy") & (pc.field("label_fraction") == 0.1)
    )
    assert table.cells[0][0].value == best["value"][0].as_py()  # type: ignore[union-attr]
    for source in set(results["source"].to_pylist()):
        path = predictions_beside(source)
        assert path is not None
        path.rename(path.with_name("gone"))
    from results.stats import validation

    validation._validation_matrix.cache_clear()
    assert any("chosen on the test images" in note for note in build("peak-accuracy", results, Options()).notes)


def test_peak_accuracy_chooses_among_all_settings_of_the_configuration(tmp_path: Path) -> None:
    for rate, auroc in ((0.1, 0.6), (0.01, 0.95), (0.001, 0.75)):
        for seed in (0, 1):
            simulate.finetune(
                tmp_path,
                seed=seed,
                labels={"edema": auroc},
                config={"optim": {"lr": rate}},
                intervals=False,
                history=False,
            )
    table = build("peak-accuracy", collect(tmp_path)[0], Options(test=False))
    cell = table.cells[0][0]
    assert cell is not None and cell.n == 2
    assert {configs.parsed(row["config"])["optim.lr"] for row in cell.rows} == {0.01}
    assert table.notes[0] == "The setting (optim.lr) of each cell was chosen on validation images, among 3."
    assert table.notes[1] == "Chosen (cells): optim.lr 0.01 (1)."
    for source in set(collect(tmp_path)[0]["source"].to_pylist()):
        rows = read_metrics(source).to_pylist()
        write_metrics(source, [row | {"value": None} for row in rows])
    undefined = build("peak-accuracy", collect(tmp_path)[0], Options(test=False))
    assert undefined.cells[0][0] is not None and "undefined" in render(undefined, "markdown")
    assert not any("no finished run" in note for note in undefined.notes)


def test_search_ranks_what_is_undefined_last_and_each_test_set_alone(tmp_path: Path) -> None:
    for rate, auroc in ((0.1, 0.6), (0.01, 0.95), (0.001, 0.75)):
        simulate.finetune(
            tmp_path,
            labels={"edema": auroc},
            config={"optim": {"rate": rate}},
            train_dataset="nih",
            test_datasets=("nih", "chexpert"),
            intervals=False,
        )
    lost = simulate.finetune(
        tmp_path, labels={"edema": 0.9}, config={"optim": {"rate": 7.0}}, train_dataset="nih", intervals=False
    )
    rows = read_metrics(lost.metrics).to_pylist()
    write_metrics(lost.metrics, [row | {"value": None} for row in rows])
    predictions = read_predictions(lost.predictions).to_pylist()
    truth = [1 if row["split"] == "val" else row["y_true"] for row in predictions]  # no negatives on validation
    write_predictions(
        lost.predictions,
        pa.Table.from_pylist(
            [row | {"y_true": y} for row, y in zip(predictions, truth, strict=True)], schema=PREDICTIONS
        ),
    )
    table = build("search", collect(tmp_path)[0], Options(limit=10))
    held = [(names[0], names[1], names[-1]) for names in table.row_names]
    assert [one for one in held if one[1] == "chexpert"] == [
        ("1", "chexpert", "0.01"),
        ("2", "chexpert", "0.001"),
        ("3", "chexpert", "0.1"),
    ]
    assert [one[2] for one in held if one[1] == "nih"] == ["0.01", "0.001", "0.1", "7"]
    assert held[-1][0] == "\u2013", "what has no value has no rank"
    assert "Ordered by validation, within each test set. 1 trial without a value there" in table.notes[0]


def test_search_orders_trials_by_validation_and_names_settings(tmp_path: Path) -> None:
    for rate, auroc in ((0.1, 0.6), (0.01, 0.95), (0.001, 0.75)):
        simulate.finetune(tmp_path, labels={"edema": auroc}, config={"optim": {"rate": rate}})
    table = build("search", collect(tmp_path)[0], Options(limit=2))
    assert table.row_titles == ("Rank", "optim.rate")
    assert [names[1] for names in table.row_names] == ["0.01", "0.001"]
    assert "The first 2 of 3 trials." in table.notes


def test_cost_adds_pretraining_and_counts_each_run_once(results: pa.Table) -> None:
    rows = lines(build("cost", results, Options()))
    total = next(cells for names, cells in rows.items() if names[0] == "Total")
    assert total["Runs"].text == "28"
    assert total["GPU-hours"].value == pytest.approx(2.0 + 27 * 0.1)


def test_cost_names_the_method_of_a_pretraining_where_it_is_not_simclr_alone(tmp_path: Path) -> None:
    simulate.finetune(tmp_path, history=False)
    simulate.pretrain(tmp_path)
    assert [names[0] for names in build("cost", collect(tmp_path)[0], Options()).row_names][:1] == ["Pretraining"]
    for seed in (0, 1):
        simulate.pretrain(tmp_path, method="vicreg", seed=seed)
    rows = lines(build("cost", collect(tmp_path)[0], Options()))
    runs = {names[0]: cells["Runs"].text for names, cells in rows.items()}
    assert list(runs)[:2] == ["Pretraining, SimCLR", "Pretraining, VICReg"]
    assert (runs["Pretraining, SimCLR"], runs["Pretraining, VICReg"], runs["Total"]) == ("1", "2", "4")


def test_the_method_of_an_initialisation_can_be_an_axis_and_a_filter(tmp_path: Path) -> None:
    rows = grid(
        tmp_path,
        **{
            "scratch": {},
            "simclr:nih": {"method": "simclr", "pretrain_dataset": "nih"},
            "vicreg:nih": {"method": "vicreg", "pretrain_dataset": "nih"},
        },
    )
    table = build("models", rows, Options(rows=("method",), test=False))
    assert table.row_titles == ("Pretraining method",)
    assert sorted(names[0] for names in table.row_names) == ["SimCLR", "VICReg", "none"]
    plain = build("label-efficiency", rows, Options(test=False))
    assert "Pretraining method" not in plain.row_titles, "the initialisation's name says it"
    chosen = build("models", rows, Options(where=("method=vicreg",), test=False))
    assert "vicreg:nih initialisation" in chosen.caption


def test_a_filter_of_the_cost_takes_the_pretraining_behind_the_chosen_runs_alone(results: pa.Table) -> None:
    for where, runs, left in (("init=scratch", "9", True), ("init=simclr:nih", "10", False), ("seed=0", "10", False)):
        table = build("cost", results, Options(where=(where,)))
        total = next(cells for names, cells in lines(table).items() if names[0] == "Total")
        assert total["Runs"].text == runs
        assert any("1 pretraining run that no chosen run started from left out" in note for note in table.notes) == left


def test_transfer_shows_two_label_policies_in_rows_of_their_own(tmp_path: Path) -> None:
    """As jobs/specs/transfer_nih_chexpert.toml makes them; the policies leave other test images out."""
    for policy, text, n in (("u-ones", "ones/zeros", 200), ("u-ignore", "ignore/zeros", 180)):
        for train in ("nih", "chexpert"):
            simulate.finetune(
                tmp_path,
                train_dataset=train,
                test_datasets=("nih", "chexpert"),
                label_policy=text,
                variant=f"policy={policy}",
                config={"uncertain": policy.removeprefix("u-")},
                n={"val": 120, "test": n},
                intervals=False,
                history=False,
            )
    results = collect(tmp_path)[0]
    table = build("transfer", results, Options())
    assert table.row_titles == ("Label policy", "Training set") and len(table.row_names) == 4
    assert all(cell is not None and cell.n == 1 for line in table.cells for cell in line)
    assert "label policy ignore/zeros" in table.caption and "label policy ones/zeros" in table.caption
    with pytest.raises(InputError, match="mix several label policies"):
        build("label-efficiency", results, Options())


def test_policies_of_training_alone_are_no_mixture(tmp_path: Path) -> None:
    """A test set without uncertain labels has the same truths under every policy."""
    for policy in ("ones", "ignore"):
        simulate.finetune(
            tmp_path, label_policy=f"{policy}/zeros", config={"uncertain": policy}, intervals=False, history=False
        )
    table = build("label-efficiency", collect(tmp_path)[0], Options(test=False))
    assert [names[0] for names in table.row_names] == ["ignore/zeros", "ones/zeros"]


def test_wrong_names_and_values_are_refused_with_the_right_ones(results: pa.Table) -> None:
    for name, options, message in (
        ("diagram", Options(), "label-efficiency, transfer"),
        ("models", Options(metric="auc"), "the values are: .*auroc"),
        ("models", Options(where=("seed=7",)), "the values are: 0, 1, 2"),
        ("models", Options(where=("colour=red",)), "columns: run, signature"),
        ("models", Options(rows=("weight",)), "cannot be rows or columns"),
        ("models", Options(allow=("all",)), "there are splits, policies, levels, sets, configs, seeds"),
    ):
        with pytest.raises(InputError, match=message):
            build(name, results, options)
    with pytest.raises(InputError, match="there are markdown, latex, siunitx, csv, html"):
        render(build("cost", results), "docx")
    assert set(FORMATS) == {"markdown", "latex", "siunitx", "csv", "html"}


def test_filters_and_lists_of_words_are_split_as_a_shell_would() -> None:
    assert filters('mode=full init="simclr nih" seed=0,1') == ("mode=full", "init=simclr nih", "seed=0,1")
    assert words("label_fraction, mode") == ("label_fraction", "mode") and words(None) == ()
    with pytest.raises(InputError, match="No closing quotation"):
        filters('init="a')


def test_results_of_a_table_do_not_depend_on_the_order_of_rows(results: pa.Table) -> None:
    mixed = results.take(np.random.default_rng(0).permutation(len(results)))
    options = Options()
    assert render(build("label-efficiency", mixed, options), "csv") == render(
        build("label-efficiency", results, options), "csv"
    )
