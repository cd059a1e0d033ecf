"""Scores of image files are those of the test split, from a run or a model file; what cannot be read is said."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cxrdist.core import weights
from cxrdist.inference import network as networks
from cxrdist.inference import predict
from jobs import cli


def test_predicted_scores_are_those_of_the_test_split(run: Path, source: Path, tmp_path: Path) -> None:
    stored = pq.read_table(run / "results" / "predictions.parquet").to_pylist()
    expected = {(row["key"], row["label"]): row["y_score"] for row in stored if row["split"] == "test"}
    files = [str(next(source.glob(f"images_*/images/{key}.png"))) for key in sorted({key for key, _ in expected})]
    assert cli.main(["predict", str(run), *files, "--out", str(tmp_path / "scores.csv"), "--device", "cpu"]) == 0
    rows = list(csv.DictReader((tmp_path / "scores.csv").read_text().splitlines()))
    assert [row["image"] for row in rows] == files
    assert {label for _, label in expected} <= set(rows[0])
    for row in rows:
        for label in {label for _, label in expected}:
            assert float(row[label]) == pytest.approx(expected[Path(row["image"]).stem, label], abs=2e-6)


def test_scores_stay_the_same_when_the_training_set_is_gone(
    run: Path, shards_path: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(path) for path in sorted(source.glob("images_*/images/*.png"))[:5]]

    def scores(model: Path, *more: str) -> str:
        words = ["--device", "cpu", "--typicality", "false", "--threshold", "0.5"]  # what a file alone can tell
        assert cli.main(["predict", str(model), *files, *words, *more]) == 0
        return capsys.readouterr().out

    there = scores(run)
    assert there == scores(run, "--shards", str(shards_path))
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes((run / "model.safetensors").read_bytes())
    moved = shards_path.rename(tmp_path / "elsewhere")
    try:
        assert scores(run) == scores(alone) == there
    finally:
        moved.rename(shards_path)


@pytest.mark.parametrize("held", ["[]", '{"size": 0}', '{"bits": true}', '{"quality": 95.0}', '{"colour": 1}', "{"])
def test_a_model_file_with_a_damaged_record_of_its_pixels_is_refused(
    held: str, run: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors, facts = weights.read(run / "model.safetensors")
    weights.write(tmp_path / "model.safetensors", tensors, facts | {"conversion": held})
    image = str(next(source.glob("images_*/images/*.png")))
    assert cli.main(["predict", str(tmp_path / "model.safetensors"), image, "--device", "cpu"]) == 2
    assert "conversion" in capsys.readouterr().err


def test_dicom_files_without_an_ending_are_found_in_a_folder(tmp_path: Path) -> None:
    names = ["1.2.840.113619.2.7", "IM0001", "x.dcm", "a.png", "notes.txt", "README"]
    for name in names:
        (tmp_path / name).write_bytes(bytes(128) + b"DICM" if name[0] in "1I" else b"PatientID: 1")
    found = predict.find_images([str(tmp_path)])
    assert found == [str(tmp_path / name) for name in sorted(("1.2.840.113619.2.7", "IM0001", "x.dcm", "a.png"))]


def test_an_image_scores_the_same_alone_and_among_others(network: networks.Encoder, source: Path) -> None:
    files = predict.find_images([str(source)])[:5]
    together = [one.scores for one in predict.predict(network, files, None)]
    alone = [next(predict.predict(network, [file], None)).scores for file in files]
    np.testing.assert_array_equal(np.stack(together), np.stack(alone))  # pyright: ignore[reportArgumentType, reportCallIssue]


def test_a_damaged_file_is_reported_and_the_others_are_scored(
    run: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = str(next(source.rglob("*.png")))
    bad = tmp_path / "cut.png"
    bad.write_bytes(Path(good).read_bytes()[:300])
    assert cli.main(["predict", str(run), str(bad), good, "--device", "cpu"]) == 1
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert rows[0]["problem"] and not rows[0]["cardiomegaly"]
    assert not rows[1]["problem"] and 0 <= float(rows[1]["cardiomegaly"]) <= 1


def test_paths_that_are_not_there_end_with_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["predict", str(run), str(tmp_path / "none.png")]) == 2
    assert cli.main(["predict", str(tmp_path / "norun"), str(run)]) == 2
    assert cli.main(["predict", str(run), str(tmp_path)]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cxrdist:")]
    assert len(lines) == 3
    assert "none.png: no such image file" in lines[0] and "norun does not exist" in lines[1]
    assert "no image files" in lines[2]
