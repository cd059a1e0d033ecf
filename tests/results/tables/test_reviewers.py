"""Tables that reviewers ask for: subgroups, operating points, labels saved, calibration, differences, styles."""

from __future__ import annotations

import csv
import io
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from jobs import cli
from results.cells.options import Options
from results.collect import collect
from results.errors import InputError
from results.figures.registry import draw
from results.schema import read_predictions
from results.stats.metrics import auroc, pick_threshold
from results.tables.registry import build
from results.tables.render import Table, render
from tests.results import simulate


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scratch and an encoder at three label fractions with two seeds each; patients have a sex and an age."""
    top = tmp_path_factory.mktemp("reviewers")
    for init, base in (("scratch", 0.65), ("simclr:nih", 0.7)):
        for step, fraction in enumerate((0.01, 0.1, 1.0)):
            for seed in (0, 1):
                simulate.finetune(
                    top,
                    labels={"edema": base + 0.08 * step, "cardiomegaly": base + 0.07 * step},
                    init=init,
                    init_signature=None if init == "scratch" else "e" * 12,
                    pretrain_dataset=None if init == "scratch" else "nih",
                    label_fraction=fraction,
                    seed=seed,
                    people=True,
                    n={"val": 150, "test": 300},
                    history=False,
                    intervals=False,
                )
    return top


@pytest.fixture(scope="module")
def results(folder: Path) -> pa.Table:
    return collect(folder)[0]


def lines(table: Table) -> dict[tuple[str, ...], dict[str, Any]]:
    """Row names -> column name -> cell."""
    return {
        names: dict(zip(table.column_names, cells, strict=True))
        for names, cells in zip(table.row_names, table.cells, strict=True)
    }


def runs(results: pa.Table, init: str, fraction: float = 1.0) -> list[list[dict]]:
    """The predictions of each seed's run on edema."""
    chosen = results.filter((pc.field("init") == init) & (pc.field("label_fraction") == fraction))
    sources = sorted(set(chosen["source"].to_pylist()))
    tables = [read_predictions(Path(source).with_name("predictions.parquet")).to_pylist() for source in sources]
    return [[row for row in rows if row["label"] == "edema"] for rows in tables]


def arrays(rows: list[dict], split: str = "test") -> tuple[np.ndarray, np.ndarray]:
    held = [row for row in rows if row["split"] == split]
    return np.array([row["y_true"] == 1 for row in held]), np.array([row["y_score"] for row in held], float)


def test_a_subgroups_auroc_is_that_of_its_images_alone(results: pa.Table) -> None:
    table = build("subgroups", results, Options(label="edema", by=("sex",)))
    found = {(names[0], names[2]): cells for names, cells in lines(table).items()}
    for init in ("scratch", "simclr:nih"):
        for sex in "FM":
            wanted = [auroc(*arrays([row for row in rows if row["sex"] == sex])) for rows in runs(results, init)]
            cell = found[{"scratch": "Scratch"}.get(init, init), sex]["AUROC"]
            assert cell.value == pytest.approx(statistics.mean(wanted)) and cell.low < cell.value < cell.high
    assert "Only the largest share of labels (100 %) is shown" in " ".join(table.notes)


def test_the_largest_gap_is_that_of_two_groups_with_interval_and_p(results: pa.Table) -> None:
    table = build("subgroups", results, Options(label="edema", by=("age",)))
    cells = {names[2]: line["AUROC"] for names, line in lines(table).items() if names[0] == "Scratch"}
    gap = cells.pop("Largest gap")
    values = [cell.value for cell in cells.values() if cell.value is not None]
    assert gap.value == pytest.approx(max(values) - min(values))
    assert gap.low < gap.value < gap.high and 0 < gap.p <= 1
    assert "corrected for the pairs and over the table (Holm)" in " ".join(table.notes)


def test_groups_without_enough_patients_are_shown_without_numbers_and_in_no_gap(results: pa.Table) -> None:
    table = build("subgroups", results, Options(label="edema", by=("age",), ages=(15.5, 50.0)))
    cells = {names[2]: line["AUROC"] for names, line in lines(table).items() if names[0] == "Scratch"}
    assert cells["below 15.5"].text == "\u2021" and cells["below 15.5"].value is None
    assert "below" not in cells["Largest gap"].text
    assert "fewer than 3 patients with or without the finding" in " ".join(table.notes)


def test_runs_that_do_not_know_their_patients_have_no_subgroups(tmp_path: Path) -> None:
    simulate.finetune(tmp_path, history=False, intervals=False)
    with pytest.raises(InputError, match="no subgroups: sex: the predictions do not say sex; age: .*; view: "):
        build("subgroups", collect(tmp_path)[0], Options())


def test_operating_points_are_chosen_on_validation_and_counted_on_test(results: pa.Table) -> None:
    table = build("operating-points", results, Options(label="edema", at=("sensitivity=0.9", "specificity=0.8")))
    for rule in ("sensitivity=0.9", "specificity=0.8"):
        cells = lines(table)["Scratch", rule.replace("=", " ")]
        wanted: dict[str, list[float]] = {name: [] for name in ("Sensitivity", "Specificity", "PPV", "NPV")}
        for rows in runs(results, "scratch"):
            threshold = pick_threshold(*arrays(rows, "val"), rule)
            truth, score = arrays(rows)
            called = score >= threshold
            wanted["Sensitivity"].append(called[truth].mean())
            wanted["Specificity"].append((~called)[~truth].mean())
            wanted["PPV"].append(truth[called].mean())
            wanted["NPV"].append((~truth)[~called].mean())
        for name, values in wanted.items():
            assert cells[name].value == pytest.approx(np.mean(values)), name
            assert cells[name].low < cells[name].value < cells[name].high


def test_a_stated_prevalence_changes_predictive_values_alone_and_is_named(results: pa.Table) -> None:
    own, rare = (
        lines(build("operating-points", results, Options(label="edema", prevalence=share)))[
            "Scratch", "sensitivity 0.9"
        ]
        for share in (None, 0.01)
    )
    assert own["Sensitivity"] == rare["Sensitivity"] and own["Specificity"] == rare["Specificity"]
    assert rare["PPV"].value < own["PPV"].value / 3 and rare["NPV"].value > own["NPV"].value
    notes = build("operating-points", results, Options(label="edema", prevalence=0.01)).notes
    assert "a prevalence of 1 %" in notes[0]


def test_without_validation_predictions_there_is_no_operating_point(tmp_path: Path) -> None:
    simulate.finetune(tmp_path, n={"test": 200}, history=False, intervals=False)
    table = build("operating-points", collect(tmp_path)[0], Options())
    assert all(cell.value is None for line in table.cells for cell in line if cell is not None)
    assert "no validation predictions" in " ".join(table.notes)


def test_labels_saved_lie_where_the_reference_has_the_same_value(results: pa.Table) -> None:
    table = build("labels-saved", results, Options(label="edema"))
    cells = lines(table)["simclr:nih", "1 %"]
    curve = [
        statistics.mean(auroc(*arrays(rows)) for rows in runs(results, "scratch", fraction))
        for fraction in (0.01, 0.1, 1.0)
    ]
    assert cells["AUROC"].value == pytest.approx(
        statistics.mean(auroc(*arrays(rows)) for rows in runs(results, "simclr:nih", 0.01))
    )
    share = float(10 ** np.interp(cells["AUROC"].value, curve, (-2, -1, 0)))
    assert cells["Scratch reaches it at"].value == pytest.approx(share)
    assert cells["Times the labels"].value == pytest.approx(share / 0.01)
    assert cells["Scratch reaches it at"].text.startswith(f"{100 * share:.3g} % [")


def test_a_value_that_the_reference_never_reaches_is_told_as_beyond_its_last_share(results: pa.Table) -> None:
    cell = lines(build("labels-saved", results, Options()))["simclr:nih", "100 %"]["Scratch reaches it at"]
    assert cell.text.startswith("> 100 %") and cell.value is None


def test_labels_saved_need_the_reference(results: pa.Table) -> None:
    with pytest.raises(InputError, match="no run with init = imagenet to compare with; there are scratch, simclr:nih"):
        build("labels-saved", results, Options(reference="imagenet"))


def test_recalibration_on_validation_is_named_and_brings_the_slope_near_one(results: pa.Table) -> None:
    before = build("calibration", results, Options(label="edema"))
    after = build("calibration", results, Options(label="edema", recalibrate="temperature"))
    assert "scores recalibrated by temperature scaling on validation" in after.caption
    assert "recalibrated" not in before.caption
    slopes = [lines(table)["simclr:nih",]["Slope"].value for table in (before, after)]
    assert abs(slopes[1] - 1) < abs(slopes[0] - 1)
    assert lines(before)["simclr:nih",]["ECE"].low is None
    losses = [lines(table)["simclr:nih",]["Log loss"] for table in (before, after)]
    assert losses[1].value < losses[0].value
    assert all(0 < loss.low < loss.value < loss.high for loss in losses)


def test_differences_stand_beside_the_cells_with_interval_and_corrected_p(results: pa.Table) -> None:
    table = build("label-efficiency", results, Options(difference="scratch"))
    for cells in lines(table).values():
        found = cells["simclr:nih \u2212 Scratch"]
        assert found.value == pytest.approx(cells["simclr:nih"].value - cells["Scratch"].value)
        assert found.low < found.value < found.high and f"p {found.p:.3f}" in found.text
    rows = list(csv.DictReader(io.StringIO(render(table, "csv"))))
    ps = [float(row["p"]) for row in rows if row["p"]]
    assert len(ps) == 3 and "p Holm-corrected over 3 differences" in table.notes[-1]


def test_differences_down_the_rows_of_transfer_name_the_reference(results: pa.Table) -> None:
    table = build("transfer", results, Options(difference="scratch", where=("label_fraction=1",)))
    cells = {names[1]: line for names, line in lines(table).items()}
    assert cells["Scratch"]["\u2212 Scratch"].text == "reference"
    gap = cells["simclr:nih"]["phantom"].value - cells["Scratch"]["phantom"].value
    assert cells["simclr:nih"]["\u2212 Scratch"].value == pytest.approx(gap)


def test_a_difference_to_what_is_not_there_is_refused_with_what_there_is(results: pa.Table) -> None:
    with pytest.raises(InputError, match="no such value in this table; there are init: scratch, simclr:nih"):
        build("label-efficiency", results, Options(difference="imagenet"))


def test_mean_sd_prints_the_spread_over_seeds_and_speaks_of_no_interval(results: pa.Table) -> None:
    table = build("label-efficiency", results, Options(style="mean-sd", label="edema"))
    cell = lines(table)["100 %", "1000"]["Scratch"]
    values = [auroc(*arrays(rows)) for rows in runs(results, "scratch")]
    assert cell.sd == pytest.approx(statistics.stdev(values), rel=1e-5) and cell.low is None
    assert "standard deviation over seeds (n = 2)" in table.caption and "interval" not in table.caption
    assert f"{cell.value:.3f} \u00b1 {cell.sd:.3f}" in render(table, "markdown")
    assert f"{cell.value:.3f} \\pm {cell.sd:.3f}" in render(table, "siunitx")


def test_siunitx_columns_have_room_for_their_numbers_and_braces_around_words(results: pa.Table) -> None:
    text = render(build("label-efficiency", results, Options()), "siunitx")
    assert "\\usepackage{booktabs,siunitx}" in text and text.count("S[table-format=1.3,") == 2
    assert "{Scratch} & {simclr:nih}" in text and "{\\,\\scriptsize[" in text
    assert text.count("{") == text.count("}")


def test_a_forest_has_a_line_for_each_label_and_a_mark_for_each_initialisation(results: pa.Table) -> None:
    drawing = draw("forest", results, Options())
    (axis,) = drawing.figure.axes
    assert [text.get_text() for text in axis.get_yticklabels()] == ["Cardiomegaly", "Edema", "Macro mean"]
    assert len(axis.lines) == 6 and "Only the largest share" in drawing.caption
    against = draw("forest", results, Options(difference="scratch"))
    assert against.figure.axes[0].get_xlabel() == "AUROC, minus Scratch"
    assert "not corrected for being many" in against.caption


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["subgroups", "--by", "race"], "name some of sex, age, view"),
        (["subgroups", "--ages", "40,20"], "rising"),
        (["subgroups", "--ages", "old"], "years separated by commas"),
        (["subgroups", "--metric", "ece"], "subgroups can be compared in"),
        (["operating-points", "--at", "youden"], "unknown threshold rule 'youden'"),
        (["operating-points", "--prevalence", "1"], "(0, 1)"),
        (["operating-points", "--columns", "init"], "leave out --columns"),
        (["labels-saved", "--metric", "brier"], "labels saved can be computed for"),
        (["per-class", "--difference", "scratch"], "is for the table label-efficiency and transfer"),
        (["calibration", "--metric", "auroc"], "leave out --metric"),
    ],
)
def test_what_a_table_cannot_do_is_one_line(folder: Path, capsys, words: list[str], said: str) -> None:
    assert cli.main(["table", words[0], str(folder), *words[1:]]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
