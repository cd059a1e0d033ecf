"""Fine-tuning and testing by study: what predictions say of a sample, and numbers of studies in a run."""

from __future__ import annotations

import shutil

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from cxrdist.errors import InputError
from cxrdist.finetune import identity
from cxrdist.finetune.evaluate import evaluate
from jobs import cli
from results import schema
from results.run import Run
from results.stats.scoring import metric_rows
from shards.read.index import Index
from tests.cxrdist import findings
from tests.cxrdist.conftest import TINY
from tests.cxrdist.finetuning import trained, trial

QUICK = {"mode": "linear", "arch": TINY, "image_size": 32}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Two sets with studies of two images each, one without."""
    folder = tmp_path_factory.mktemp("places")
    return {
        "here": findings.make(folder, name="here", seed=1, studies=True),
        "there": findings.make(
            folder, name="there", seed=2, studies=True, labels=("pneumonia", "fracture"), unsure=0.2
        ),
        "plain": findings.make(folder, name="plain", seed=3),
    }


@pytest.fixture(scope="module")
def by_image(places, tmp_path_factory) -> Run:
    """A run that was trained and tested by image; nothing changes it."""
    return trained(tmp_path_factory.mktemp("runs") / "image", places["here"], **QUICK)


@pytest.fixture
def copy(by_image, tmp_path) -> Run:
    """The same, to be changed."""
    shutil.copytree(by_image.path, tmp_path / "run")
    return Run(tmp_path / "run")


def numbers(run: Run, dataset: str) -> dict[tuple, float | None]:
    rows = schema.read_metrics(run.metrics).to_pylist()
    return {(row["level"], row["label"], row["metric"]): row["value"] for row in rows if row["test_dataset"] == dataset}


def levels(run: Run, dataset: str) -> set[str]:
    return {key[0] for key in numbers(run, dataset)}


def test_predictions_say_study_view_sex_and_age_as_the_index_does(by_image, places):
    table = schema.read_predictions(by_image.predictions)
    assert set(table["split"].to_pylist()) == {"val", "test"}
    table = table.filter(pc.field("label") == "edema")
    index = Index.open(places["here"])
    rows = index.find(table["key"].to_pylist())
    for name in ("study_id", "view", "sex"):
        assert table[name].to_pylist() == getattr(index, name)(rows).tolist()
    assert table["age"].to_pylist() == index.age(rows).tolist()
    assert set(table["view"].to_pylist()) == {"PA", "AP", None} and table["study_id"].null_count == 0


def test_predictions_of_a_set_that_says_nothing_are_null(places, tmp_path):
    run = trained(tmp_path / "run", places["plain"], **QUICK)
    table = schema.read_predictions(run.predictions)
    assert all(table[name].null_count == len(table) for name in schema.OF_SAMPLES)


@pytest.mark.parametrize("level", ["study", "study_max"])
def test_a_trial_by_study_learns_the_same_and_is_scored_by_study(by_image, places, tmp_path, level):
    run = trained(tmp_path / "run", places["here"], level=level, **QUICK)
    one, other = (schema.read_predictions(r.predictions).drop_columns("run") for r in (by_image, run))
    assert one.equals(other), "predictions hold images"
    assert levels(run, "here") == {level} and levels(by_image, "here") == {"image"}
    again = metric_rows(schema.read_predictions(run.predictions), {"train_dataset": "here"}, level=level)
    assert numbers(run, "here") == {(row["level"], row["label"], row["metric"]): row["value"] for row in again}
    auroc = next(row for row in schema.read_metrics(run.metrics).to_pylist() if row["metric"] == "auroc")
    assert auroc["n_pos"] + auroc["n_neg"] == findings.SPLITS["test"] // 2 and auroc["ci_low"] < auroc["value"]
    assert run.read_done()["test_auroc"] == numbers(run, "here")[level, "macro", "auroc"]


def test_images_are_the_default_and_keep_the_signature_of_runs_from_before(places, tmp_path):
    config, run = trial(tmp_path / "run", places["here"], **QUICK)
    named, _ = trial(tmp_path / "run", places["here"], level="image", **QUICK)
    studies, _ = trial(tmp_path / "other", places["here"], level="study", **QUICK)
    signatures = [identity.trial_signature(one) for one in (config, named, studies)]
    assert signatures[0] == signatures[1] == run.read_info()["signature"] != signatures[2]


def test_a_later_test_by_study_leaves_the_images_numbers_as_they_were(by_image, copy, places, tmp_path):
    rows = evaluate(copy.path, [str(places["here"])], level="study")
    assert {row["level"] for row in rows} == {"image", "study"}
    whole = trained(tmp_path / "whole", places["here"], level="study", **QUICK)
    expected = numbers(by_image, "here") | numbers(whole, "here")
    assert numbers(copy, "here") == expected
    evaluate(copy.path, [str(places["here"])])
    assert numbers(copy, "here") == expected, "testing again makes both levels again"


def test_another_policy_is_that_of_every_level(copy, places):
    evaluate(copy.path, [str(places["there"])], level="study")
    evaluate(copy.path, [str(places["there"])])
    before = numbers(copy, "there")
    evaluate(copy.path, [str(places["there"])], uncertain="ignore", level="study_max")
    rows = [row for row in schema.read_metrics(copy.metrics).to_pylist() if row["test_dataset"] == "there"]
    assert {row["label_policy"] for row in rows} == {"ignore/zeros"}
    assert {row["level"] for row in rows} == {"image", "study", "study_max"}
    assert numbers(copy, "there")["study", "pneumonia", "auroc"] != before["study", "pneumonia", "auroc"]


def test_images_of_a_study_that_disagree_are_counted_aloud(copy, places, caplog):
    evaluate(copy.path, [str(places["there"])], level="study", uncertain="ignore")
    assert not any("different labels" in line for line in caplog.messages)
    evaluate(copy.path, [str(places["there"])], level="study", uncertain="ones")
    told = [line for line in caplog.messages if "carry different labels" in line]
    assert len(told) == 1 and "a study is positive if an image of it is" in told[0]


def test_a_set_without_studies_is_refused_in_one_line_before_anything_is_made(copy, places, tmp_path, capsys):
    words = ["finetune", "--shards", str(places["plain"]), "--out", str(tmp_path / "new"), "--level", "study"]
    assert cli.main([*words, "--arch", TINY, "--device", "cpu"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and str(places["plain"]) in told and "--level image" in told
    assert not (tmp_path / "new").exists()
    before = copy.metrics.read_bytes(), copy.predictions.read_bytes()
    assert cli.main(["evaluate", str(copy.path), "--shards", str(places["plain"]), "--level", "study"]) == 2
    assert "does not say which study an image is of" in capsys.readouterr().err
    assert (copy.metrics.read_bytes(), copy.predictions.read_bytes()) == before
    with pytest.raises(InputError, match="plain does not say which study"):
        trial(tmp_path / "more", places["here"], level="study", eval_shards=str(places["plain"]), **QUICK)


def forget_studies(run: Run) -> None:
    """Make predictions and metrics what version 2 wrote."""
    for path, columns in ((run.predictions, schema.OF_SAMPLES), (run.metrics, ("level",))):
        old = pq.read_table(path)
        if path == run.metrics:
            old = old.filter(pc.field("level") == "image")
        old = old.drop_columns(list(columns))
        pq.write_table(old.replace_schema_metadata(old.schema.metadata | {b"cxrdist.schema_version": b"2"}), path)


def test_studies_that_older_predictions_lack_are_looked_up_for_the_thresholds(copy, places):
    evaluate(copy.path, [str(places["there"])], level="study")
    expected, table = numbers(copy, "there"), schema.read_predictions(copy.predictions)
    cuts = {row["threshold"] for row in schema.read_metrics(copy.metrics).to_pylist() if row["level"] == "study"}
    forget_studies(copy)
    evaluate(copy.path, [str(places["there"])], level="study")
    assert numbers(copy, "there") == expected
    assert {
        row["threshold"] for row in schema.read_metrics(copy.metrics).to_pylist() if row["level"] == "study"
    } == cuts
    val = [row for row in schema.read_predictions(copy.predictions).to_pylist() if row["split"] == "val"]
    assert sorted(val, key=str) == sorted((row for row in table.to_pylist() if row["split"] == "val"), key=str)


def test_without_the_training_set_older_predictions_are_not_scored_by_study(copy, places, tmp_path, capsys):
    (tmp_path / "set").symlink_to(places["here"])
    run = trained(tmp_path / "moved", tmp_path / "set", **QUICK)
    forget_studies(run)
    (tmp_path / "set").unlink()
    assert cli.main(["evaluate", str(run.path), "--shards", str(places["there"]), "--level", "study"]) == 2
    told = capsys.readouterr().err
    assert "its training set, which may say it, cannot be opened" in told and told.count("\n") == 1
    assert cli.main(["evaluate", str(run.path), "--shards", str(places["there"])]) == 0
    evaluate(run.path, [str(places["here"]), str(places["there"])], level="study")
    assert levels(run, "there") == {"image", "study"}


def test_a_label_that_was_not_learnt_is_counted_in_studies(places, tmp_path):
    rare = findings.make(tmp_path, name="rare", studies=True, positive={"edema": 0.02}, seed=5)
    images, studies = (
        trained(tmp_path / level, rare, level=level, label_fraction=0.1, labels="pneumonia,edema", **QUICK)
        for level in ("image", "study")
    )
    assert images.read_done()["unlearnt"] == ["edema"]
    counts = []
    for run in (images, studies):
        rows = schema.read_metrics(run.metrics).to_pylist()
        counts.append(next((row["n_pos"], row["n_neg"]) for row in rows if row["label"] == "edema"))
    assert counts[0] == tuple(2 * number for number in counts[1]) and sum(counts[1]) == findings.SPLITS["test"] // 2
