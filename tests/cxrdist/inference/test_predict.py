"""Decisions beside probabilities, JSON lines, thresholds by rule, and images that are no X-rays like the training's."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import cxrdist
from cxrdist.inference import network as networks
from cxrdist.inference import predict, typicality
from jobs import cli
from results.run import Run
from results.stats.metrics import pick_threshold
from shards import ShardSet
from tests.cxrdist.finetuning import trained


@pytest.fixture(scope="module")
def run(blobs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("predict") / "run", blobs, epochs=1, min_steps=5, n_boot=0).path


@pytest.fixture(scope="module")
def files(blobs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The test images as the files they are stored as, by key."""
    folder, test = tmp_path_factory.mktemp("files"), ShardSet(blobs, "test")
    for i, key in enumerate(test.index.keys(test.rows).tolist()):
        (folder / f"{key}.png").write_bytes(test.stored(i))
    return {path.stem: path for path in sorted(folder.iterdir())}


def test_decisions_are_those_of_the_runs_thresholds(run: Path, files: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "scores.jsonl"
    words = ["predict", str(run), *map(str, files.values()), "--out", str(out), "--device", "cpu"]
    assert cli.main(words) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    metrics = pq.read_table(run / "results" / "metrics.parquet").to_pylist()
    at = {row["metric"]: row for row in metrics if row["label"] == "pneumonia"}
    counted = sum(row["pneumonia_positive"] for row in rows)
    assert counted == at["tp"]["value"] + at["fp"]["value"]
    assert all(row["pneumonia_positive"] == (row["pneumonia"] >= at["tp"]["threshold"]) for row in rows)
    assert cli.main([*words[:-4], "--format", "csv", "--out", str(tmp_path / "s.csv"), "--device", "cpu"]) == 0
    for row, line in zip(rows, csv.DictReader((tmp_path / "s.csv").read_text().splitlines()), strict=True):
        assert float(line["pneumonia"]) == pytest.approx(row["pneumonia"], abs=1e-6)
        assert line["pneumonia_positive"] == str(int(row["pneumonia_positive"])) and not line["problem"]


def test_a_run_that_was_tested_elsewhere_alone_has_its_thresholds_all_the_same(run: Path, tmp_path: Path) -> None:
    table = pq.read_table(run / "results" / "metrics.parquet")
    at = table.column_names.index("test_dataset")
    other = table.set_column(
        at, table.schema.field(at), pa.array(["elsewhere"] * len(table)).cast(table["test_dataset"].type)
    )
    (tmp_path / "results").mkdir()
    pq.write_table(other, tmp_path / "results" / "metrics.parquet")
    found = predict.thresholds(Run(tmp_path), ["pneumonia"], None)
    assert found == predict.thresholds(Run(run), ["pneumonia"], None) and found["pneumonia"] is not None


def test_an_image_is_not_written_over_by_its_own_scores(
    run: Path, files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    one = next(iter(files.values()))
    before = one.read_bytes()
    assert cli.main(["predict", str(run), str(one), "--out", str(one), "--device", "cpu"]) == 2
    assert "is one of the images" in capsys.readouterr().err and one.read_bytes() == before


def test_another_rule_chooses_its_threshold_on_the_runs_validation(
    run: Path, files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    val = pq.read_table(run / "results" / "predictions.parquet").filter(pc.field("split") == "val")
    truth, score = np.array(val["y_true"].to_pylist()), np.array(val["y_score"].to_pylist(), np.float64)
    for rule in ("sensitivity=0.9", "accuracy", "0.5"):
        found = predict.thresholds(Run(run), ["pneumonia"], rule)
        assert found == {"pneumonia": pick_threshold(truth, score, rule)}
    one = str(next(iter(files.values())))
    assert cli.main(["predict", str(run), one, "--threshold", "best", "--device", "cpu"]) == 2
    assert "threshold = 'best': must be balanced_accuracy" in capsys.readouterr().err
    model = str(run / "model.safetensors")
    assert predict.thresholds(None, ["pneumonia"], "0.3") == {"pneumonia": 0.3}
    assert cli.main(["predict", model, one, "--threshold", "f1", "--device", "cpu"]) == 0, "its run lies around it"


def test_three_lines_of_python_score_a_file_as_the_command_does(run: Path, files: dict[str, Path]) -> None:
    model = cxrdist.load_classifier(str(run), device="cpu")
    (row,) = model.predict([str(files["test_000003"])])
    stored = pq.read_table(run / "results" / "predictions.parquet").to_pylist()
    expected = next(r["y_score"] for r in stored if r["key"] == "test_000003" and r["split"] == "test")
    assert model.labels == ["pneumonia"] and row["pneumonia"] == pytest.approx(expected, abs=2e-6)


def test_noise_black_and_pictures_are_flagged_and_test_images_are_not(
    run: Path, files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64]
    strange = {
        "black": np.zeros((64, 64)),
        "white": np.full((64, 64), 255),
        "noise": rng.integers(0, 256, (64, 64)),
        "ramp": 4 * x,
        "stripes": 127 + 120 * np.sin(y / 3),
    }
    for name, pixels in strange.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), pixels.astype(np.uint8))
    out = tmp_path / "all.jsonl"
    words = ["predict", str(run), str(tmp_path), *map(str, files.values()), "--out", str(out), "--device", "cpu"]
    assert cli.main(words) == 0
    rows = {Path(row["image"]).stem: row for row in map(json.loads, out.read_text().splitlines())}
    assert all(rows[name]["atypical"] for name in strange), {name: rows[name]["atypicality"] for name in strange}
    false_alarms = sum(rows[key]["atypical"] for key in files)
    assert false_alarms <= 2, "150 training and 40 validation images of noise and blobs are few"
    assert f"{len(strange) + false_alarms} unlike the training images" in capsys.readouterr().err
    assert (run / "typicality.safetensors").is_file()


def test_what_is_typical_is_kept_and_belongs_to_its_weights(run: Path, blobs: Path, tmp_path: Path) -> None:
    network = networks.load(run, "cpu", classify=True)
    found = typicality.fit(network, ShardSet(blobs, "train"), ShardSet(blobs, "val"))
    typicality.write(tmp_path / "t.safetensors", found, "abc")
    assert typicality.read(tmp_path / "t.safetensors", "other") is None
    again = typicality.read(tmp_path / "t.safetensors", "abc")
    assert again is not None and again.n_val == found.n_val == 40
    images = ShardSet(blobs, "test").images(np.arange(5), network.image_size)
    np.testing.assert_array_equal(again.score(network, images), found.score(network, images))


def test_distance_is_mahalanobis_where_all_directions_are_kept() -> None:
    rng = np.random.default_rng(1)
    train = rng.normal(size=(4000, 3)) @ np.diag([1.0, 5.0, 0.2])
    space = typicality.fit_space(train.astype(np.float32))
    points = np.array([[3.0, 0, 0], [0, 10, 0], [0, 0, 1.0]], np.float32)
    inverse = np.linalg.inv(np.cov(train.T))
    centred = points - train.mean(axis=0)
    expected = np.sqrt(np.einsum("nd,de,ne->n", centred, inverse, centred))
    np.testing.assert_allclose(space.distance(points), expected, rtol=0.02)


@pytest.mark.parametrize("n", [40, 5000])
def test_few_images_like_those_of_validation_are_flagged(n: int) -> None:
    """Also where 40 images must say it, whose largest distance would be exceeded by one in five of eight spaces."""
    rng = np.random.default_rng(2)
    shared = rng.normal(size=(n + 20_000, 1))
    distances = np.exp(0.3 * shared + 0.2 * rng.normal(size=(n + 20_000, 8)))
    found = typicality.limits(distances[:n])
    flagged = float((distances[n:] > found).any(axis=1).mean())
    assert flagged < (0.02 if n == 40 else 0.008), flagged
