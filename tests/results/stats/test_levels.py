"""Scores of studies: made of their images' scores in one place, and never in one cell with scores of images."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from sklearn import metrics as sk

from jobs import cli
from results.cells.cell import gather
from results.cells.options import Options, filters
from results.cells.select import RowChoice, choose
from results.cells.significance import Comparer
from results.collect import collect
from results.errors import InputError
from results.figures.registry import draw
from results.levels import contradictions, scores, truths, units
from results.metric_names import COUNTS, METRICS
from results.schema import METRICS as METRICS_SCHEMA
from results.schema import read_metrics, read_predictions, write_metrics, write_predictions
from results.stats.delong import Difference
from results.stats.rescore import open_results
from results.stats.scoring import metric_rows
from results.stats.validation import validation_value
from results.tables.registry import build
from tests.results import simulate

LABELS = {"cardiomegaly": 0.8, "edema": 0.7}
BOTH = ("image", "study")


def by_name(rows: list[dict]) -> dict[tuple[str, str], dict]:
    return {(row["label"], row["metric"]): row for row in rows}


@pytest.mark.parametrize(("level", "joined"), [("study", "mean"), ("study_max", "max")])
def test_numbers_of_studies_are_those_of_their_images_joined_by_hand(level: str, joined: str) -> None:
    table = simulate.predictions(labels=LABELS, studies=True)
    found = by_name(metric_rows(table, {}, level=level))
    assert {row["level"] for row in found.values()} == {level}
    frame = table.to_pandas().groupby(["split", "label", "study_id"]).agg({"y_true": "max", "y_score": joined})
    for label in LABELS:
        val, test = (frame.loc[split, label] for split in ("val", "test"))
        rows = {metric: found[label, metric] for metric in METRICS + COUNTS}
        assert rows["auroc"]["value"] == pytest.approx(sk.roc_auc_score(test["y_true"], test["y_score"]), abs=1e-6)
        assert rows["brier"]["value"] == pytest.approx(((test["y_score"] - test["y_true"]) ** 2).mean(), abs=1e-6)
        assert (rows["auroc"]["n_pos"], rows["auroc"]["n_neg"]) == (test["y_true"].sum(), (1 - test["y_true"]).sum())
        cut = rows["recall"]["threshold"]
        best = max(sk.balanced_accuracy_score(val["y_true"], val["y_score"] >= one) for one in val["y_score"])
        assert sk.balanced_accuracy_score(val["y_true"], val["y_score"] >= cut - 1e-6) == pytest.approx(best)
        assert rows["tp"]["value"] == ((test["y_score"] >= cut - 1e-6) & (test["y_true"] == 1)).sum()
        assert rows["auroc"]["ci_low"] < rows["auroc"]["value"] < rows["auroc"]["ci_high"]
    assert found["edema", "auroc"]["n_neg"] < by_name(metric_rows(table, {}))["edema", "auroc"]["n_neg"]


def test_intervals_of_studies_are_those_of_a_set_that_holds_one_image_a_study() -> None:
    table = simulate.predictions(labels=LABELS, studies=True)
    names = ["run", "dataset", "split", "study_id", "patient_id", "label"]
    joined = table.to_pandas().groupby(names, as_index=False).agg({"y_true": "max", "y_score": "max"})
    joined = pa.Table.from_pandas(joined.rename(columns={"study_id": "key"}), preserve_index=False)
    for one, other in zip(metric_rows(joined, {}), metric_rows(table, {}, level="study_max"), strict=True):
        for name in ("label", "metric", "value", "ci_low", "ci_high", "n_pos", "n_neg", "n_patients", "threshold"):
            assert one[name] == other[name], (one, other)


def test_studies_of_one_image_give_the_numbers_of_images_to_the_last_digit() -> None:
    table = simulate.predictions(labels=LABELS)
    table = table.append_column("study_id", pa.array([f"{key}s" for key in table["key"].to_pylist()]))
    images = metric_rows(table, {"created_at": None})
    for level in ("study", "study_max"):
        for one, other in zip(images, metric_rows(table, {}, level=level), strict=True):
            different = {name for name in one if one[name] != other[name]}
            assert different <= {"level", "created_at"}, (one, other)


def test_a_study_is_of_one_patient_and_an_image_without_one_stands_alone() -> None:
    patients, studies = np.array([0, 0, 1, 1, 1]), np.array([0, 0, 0, -1, -1])
    codes = units(patients, studies)
    assert codes[0] == codes[1] and len(set(codes.tolist())) == 4 and codes.max() == 3
    assert len(set(units(patients, np.full(5, -1)).tolist())) == 5
    assert units(np.zeros(0, int), np.zeros(0, int)).tolist() == []


def test_a_study_is_positive_if_one_of_its_images_is_and_unknown_only_if_all_are() -> None:
    of_unit = np.array([2, 0, 1, 0, 2, 1, 3])
    truth = np.array([[1], [0], [-1], [-1], [0], [-1], [0]], np.int8)
    assert truths(of_unit, truth).tolist() == [[0], [-1], [1], [0]]
    assert contradictions(of_unit, truth).tolist() == [2]


def test_images_that_were_not_scored_are_in_no_mean() -> None:
    score, scored = np.array([[0.2], [0.6], [0.9]]), np.array([[True], [False], [True]])
    codes = np.array([0, 0, 1])
    assert scores("study", codes, score, scored).tolist() == [[0.2], [0.9]]
    assert scores("study_max", codes, score, scored).tolist() == [[0.2], [0.9]]


def test_images_of_no_study_and_of_two_are_refused() -> None:
    table = simulate.predictions(labels={"edema": 0.8})
    with pytest.raises(InputError, match="test images of phantom do not say which study .* --level image"):
        metric_rows(table, {}, level="study")
    with pytest.raises(InputError, match="unknown level 'patient'; there are image, study, study_max"):
        metric_rows(table, {}, level="patient")
    two = simulate.predictions(labels=LABELS, studies=True)
    names = two["study_id"].to_pylist()
    names[-1] = "another"
    with pytest.raises(InputError, match="one key belongs to two studies"):
        metric_rows(two.set_column(8, "study_id", pa.array(names)), {}, level="study")


def test_files_from_before_levels_are_of_images_and_have_no_studies(tmp_path: Path) -> None:
    write_predictions(tmp_path / "predictions.parquet", simulate.predictions(labels=LABELS))
    write_metrics(tmp_path / "metrics.parquet", metric_rows(simulate.predictions(labels=LABELS), {}))
    later = {"predictions": ["study_id", "view", "sex", "age"], "metrics": ["level"]}
    for name, columns in later.items():
        file = tmp_path / f"{name}.parquet"
        old = pq.read_table(file).drop_columns(columns)
        pq.write_table(old.replace_schema_metadata(old.schema.metadata | {b"cxrdist.schema_version": b"2"}), file)
    predictions, numbers = (
        read_predictions(tmp_path / "predictions.parquet"),
        read_metrics(tmp_path / "metrics.parquet"),
    )
    assert all(predictions[name].null_count == len(predictions) for name in later["predictions"])
    assert set(numbers["level"].to_pylist()) == {"image"}
    assert metric_rows(predictions, {}, intervals=False)[0]["value"] == numbers["value"][0].as_py()


def test_old_and_new_runs_of_images_meet_in_one_cell(tmp_path: Path) -> None:
    runs = [simulate.finetune(tmp_path, seed=seed, intervals=False) for seed in (0, 1)]
    old = pq.read_table(runs[0].metrics).drop_columns(["level"])
    metadata = (old.schema.metadata or {}) | {b"cxrdist.schema_version": b"2"}
    pq.write_table(old.replace_schema_metadata(metadata), runs[0].metrics)
    cells = build("label-efficiency", collect(tmp_path)[0]).cells
    assert [[cell.n for cell in line if cell] for line in cells] == [[2]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """Two initialisations, three seeds, each with rows of images and of studies."""
    folder = tmp_path_factory.mktemp("levels")
    for init, quality in (("scratch", 0.65), ("imagenet", 0.9)):
        for seed in (0, 1, 2):
            labels = {"cardiomegaly": quality, "edema": quality - 0.05}
            simulate.finetune(folder, labels=labels, init=init, seed=seed, levels=BOTH, history=False)
    return collect(folder)[0]


def test_images_and_studies_never_meet_in_one_cell(results: pa.Table) -> None:
    with pytest.raises(InputError, match="mix several levels .image, study.*one with --level image, .* --allow levels"):
        build("label-efficiency", results)
    apart = {level: build("label-efficiency", results, Options(where=filters(None, level))) for level in BOTH}
    together = build("label-efficiency", results, Options(allow=("levels",)))
    assert together.row_titles[0] == "Scored by" and [names[0] for names in together.row_names] == [
        "image",
        "study (mean)",
    ]
    for place, level in enumerate(BOTH):
        for one, other in zip(apart[level].cells[0], together.cells[place], strict=True):
            assert one is not None and other is not None and one.n == other.n == 3
            assert (one.value, one.low, one.high) == (other.value, other.low, other.high)
    values = [[cell.value for cell in line if cell] for line in together.cells]
    assert values[0] != values[1]
    assert "by study: mean over its images" in apart["study"].caption and "by study" not in apart["image"].caption


def test_means_of_studies_go_over_the_labels_that_studies_have(results: pa.Table) -> None:
    gone = (pc.field("level") == "study") & (pc.field("label") == "edema") & (pc.field("init") == "scratch")
    frame = results.to_pandas()
    lost = (frame["level"] == "study") & (frame["label"] == "edema") & (frame["init"] == "scratch")
    assert len(results.filter(gone)) == lost.sum() > 0
    frame.loc[lost, "value"] = None
    macro = (frame["level"] == "study") & (frame["label"] == "macro") & (frame["init"] == "scratch")
    frame.loc[macro, "n_labels"] = 1
    single = frame[(frame["label"] == "cardiomegaly") & (frame["metric"] == "auroc")]
    means = single.groupby(["level", "init", "source"])["value"].first()
    frame.loc[macro & (frame["metric"] == "auroc"), "value"] = [
        means["study", "scratch", source] for source in frame[macro & (frame["metric"] == "auroc")]["source"]
    ]
    changed = pa.Table.from_pandas(frame, schema=results.schema, preserve_index=False)
    table = build("label-efficiency", changed, Options(allow=("levels",), test=False))
    values = {
        row[0]: [cell.value for cell in line if cell] for row, line in zip(table.row_names, table.cells, strict=True)
    }
    wanted = single.groupby(["level", "init"])["value"].mean()
    assert values["study (mean)"] == pytest.approx([wanted["study", "scratch"], wanted["study", "imagenet"]])
    images = frame[(frame["label"] == "macro") & (frame["metric"] == "auroc") & (frame["level"] == "image")]
    assert values["image"] == pytest.approx(
        [images[images["init"] == one]["value"].mean() for one in ("scratch", "imagenet")]
    )


def test_intervals_and_paired_tests_are_of_studies(results: pa.Table) -> None:
    found = {}
    for level in BOTH:
        chosen = RowChoice.of(Options(label="edema", where=filters(None, level)), ("auroc",), None)
        rows = choose(results, chosen)
        one = gather(rows[:1], ("init",), ())[(rows[0]["init"],), ()]
        assert (one.low, one.high) == pytest.approx((rows[0]["ci_low"], rows[0]["ci_high"]), abs=1e-6)
        cells = gather(rows, ("init",), ())
        found[level] = Comparer().compare(cells[("imagenet",), ()], cells[("scratch",), ()])
    image, study = found["image"], found["study"]
    assert isinstance(image, Difference) and isinstance(study, Difference) and study.value != image.value
    assert study.p < 0.05 and study.low > 0
    rows = choose(results, RowChoice.of(Options(label="edema", allow=("levels",)), ("auroc",), None))
    mixed = gather(rows, ("init", "level"), ())
    outcome = Comparer().compare(mixed[("imagenet", "study"), ()], mixed[("scratch", "image"), ()])
    assert outcome == "tested on different images"


def test_what_is_chosen_on_validation_is_chosen_on_studies(tmp_path: Path) -> None:
    run = simulate.finetune(tmp_path, levels=("study_max",))
    rows = collect(tmp_path)[0].to_pylist()
    row = next(row for row in rows if row["label"] == "edema" and row["metric"] == "auroc")
    frame = read_predictions(run.predictions).to_pandas()
    val = frame[(frame["split"] == "val") & (frame["label"] == "edema")].groupby("study_id")
    wanted = sk.roc_auc_score(val["y_true"].max(), val["y_score"].max())
    assert validation_value(row, "auroc") == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("name", ["confusion", "calibration", "roc", "per-class"])
def test_figures_of_studies_say_so(name: str, results: pa.Table) -> None:
    with pytest.raises(InputError, match="mix several levels"):
        draw(name, results)
    caption = draw(name, results, Options(where=filters(None, "study"))).caption
    assert "by study: mean over its images" in caption
    if name in ("confusion", "calibration"):
        assert "studies" in caption and "images (mean" not in caption


def test_commands_take_a_level_and_say_how_to_get_one(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    simulate.finetune(tmp_path / "runs", levels=BOTH)
    words = ["table", "per-class", str(tmp_path / "runs")]
    assert cli.main(words) == 2
    assert "--allow levels" in capsys.readouterr().err
    assert cli.main([*words, "--level", "study"]) == 0
    assert "by study" in capsys.readouterr().out
    assert cli.main([*words, "--level", "study_max"]) == 0
    assert "by study: highest of its images" in capsys.readouterr().out
    simulate.finetune(tmp_path / "plain")
    assert cli.main(["table", "per-class", str(tmp_path / "plain"), "--level", "study"]) == 2
    told = capsys.readouterr().err
    assert "cxrdist evaluate RUN --shards SET --level study adds them" in told and "1 test of a run left out" in told
    page = tmp_path / "report.html"
    assert cli.main(["report", str(tmp_path / "runs"), "--out", str(page)]) == 2
    assert "choose one with --level image" in capsys.readouterr().err and not page.exists()


def test_numbers_of_studies_are_made_from_predictions_where_runs_have_those_of_images_alone(tmp_path: Path) -> None:
    labels = {"cardiomegaly": 0.8, "edema": 0.75}
    runs = [simulate.finetune(tmp_path / "both", labels=labels, seed=seed, levels=BOTH) for seed in (0, 1)]
    wanted, notes = open_results(tmp_path / "both", "study")
    assert notes == [] and len(wanted) == len(collect(tmp_path / "both")[0]), "rows that are there are not made again"
    shutil.copytree(tmp_path / "both", tmp_path / "images")
    for run in runs:
        file = tmp_path / "images" / run.path.name / "results" / "metrics.parquet"
        table = read_metrics(file)
        write_metrics(file, table.filter(pc.field("level") == "image"))
    made, notes = open_results(tmp_path / "images", "study")
    assert notes == [] and len(made) == len(wanted)
    columns = ["run", "label", "metric", "value", "n_pos", "n_neg", "threshold", "n_patients", "n_labels", "seed"]
    columns += ["n_labels_undefined", "test_dataset", "signature"]
    one, other = (
        table.filter(pc.field("level") == "study").sort_by(
            [("run", "ascending"), ("label", "ascending"), ("metric", "ascending")]
        )
        for table in (wanted, made)
    )
    assert one.select(columns).equals(other.select(columns))
    for name, metric in (("label-efficiency", None), ("models", None), ("per-class", "recall")):
        chosen = Options(where=filters(None, "study"), metric=metric)
        cells = [
            [(cell.value, cell.low, cell.high) for line in build(name, table, chosen).cells for cell in line if cell]
            for table in (wanted, made)
        ]
        assert cells[0] == cells[1] and cells[0]


def test_runs_whose_predictions_say_no_study_are_counted_and_left_out(tmp_path: Path) -> None:
    simulate.finetune(tmp_path, seed=0, levels=BOTH)
    simulate.finetune(tmp_path, seed=1)
    table, notes = open_results(tmp_path, "study")
    assert set(table.filter(pc.field("level") == "study")["seed"].to_pylist()) == {0}
    assert notes == ["1 test of a run left out: no scores by study, and the predictions are gone or say no study"]


def test_thresholds_of_images_are_not_used_for_studies(tmp_path: Path) -> None:
    run = simulate.finetune(tmp_path, levels=BOTH)
    table = read_predictions(run.predictions)
    silent = [None if row["split"] == "val" else row["study_id"] for row in table.to_pylist()]
    write_predictions(run.predictions, table.set_column(8, "study_id", pa.array(silent)))
    write_metrics(run.metrics, read_metrics(run.metrics).filter(pc.field("level") == "image"))
    rows = open_results(tmp_path, "study")[0].filter(pc.field("level") == "study").to_pylist()
    found = {(row["label"], row["metric"]): row for row in rows}
    assert found["edema", "auroc"]["value"] is not None and found["macro", "brier"]["value"] is not None
    assert {found["edema", metric]["value"] for metric in ("recall", "accuracy", "tp")} == {None}
    assert {row["threshold"] for row in rows} == {None}


def test_a_label_that_was_not_learnt_stays_counted_in_numbers_made_from_predictions(tmp_path: Path) -> None:
    run = simulate.finetune(tmp_path, levels=BOTH)
    rows = [row for row in read_metrics(run.metrics).to_pylist() if row["level"] == "image"]
    for row in rows:
        row["n_labels_undefined"] = 1 if row["label"] == "macro" else None
    rows += [row | {"label": "hernia", "value": None} for row in rows if row["label"] == "edema"]
    write_metrics(run.metrics, rows)
    made = open_results(tmp_path, "study")[0].filter((pc.field("level") == "study") & (pc.field("metric") == "auroc"))
    found = {row["label"]: row for row in made.to_pylist()}
    assert found["hernia"]["value"] is None and found["macro"]["n_labels_undefined"] == 1
    assert found["macro"]["n_labels"] == 2


def test_levels_of_one_run_stay_apart_when_they_are_collected_again(tmp_path: Path) -> None:
    simulate.finetune(tmp_path / "runs", levels=BOTH)
    first, _ = collect(tmp_path / "runs", tmp_path / "all.parquet")
    again, warnings = collect([tmp_path / "all.parquet", tmp_path / "runs"])
    assert len(again) == len(first) == 2 * (2 * len(METRICS + COUNTS) + len(METRICS))
    assert not any("differ" in line for line in warnings)
    counts = pd.Series(again["level"].to_pylist()).value_counts().to_dict()
    assert counts == {"image": len(first) // 2, "study": len(first) // 2}
    assert "level" in METRICS_SCHEMA.names
