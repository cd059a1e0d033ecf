"""Heat maps of chosen images side by side: which images are chosen, and what the figure holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cxrdist.inference import compare_maps, tested_run
from cxrdist.inference import network as networks
from jobs import cli
from shards import ShardSet
from tests.cxrdist.finetuning import trained


@pytest.fixture(scope="module")
def runs(blobs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("compare")
    settings: dict[str, Any] = {"epochs": 1, "min_steps": 5, "n_boot": 0}
    return trained(folder / "one", blobs, **settings).path, trained(folder / "two", blobs, seed=1, **settings).path


def test_the_clearest_images_of_each_kind_are_picked(runs: tuple[Path, Path], blobs: Path) -> None:
    network = networks.load(runs[0], "cpu", classify=True)
    run = tested_run.read(str(runs[0]), "one", network, ShardSet(blobs, "test"))
    table = pq.read_table(runs[0] / "results" / "predictions.parquet").filter(pc.field("split") == "test")
    rows, limit = table.to_pylist(), run.thresholds["pneumonia"]
    assert limit is not None

    def best(truth: int, called: bool, highest: bool) -> list[str]:
        among = [row for row in rows if row["y_true"] == truth and (row["y_score"] >= limit) == called]
        return [row["key"] for row in sorted(among, key=lambda row: -row["y_score"] if highest else row["y_score"])]

    expected = {"tp": best(1, True, True), "fp": best(0, True, True), "fn": best(1, False, False)}
    expected |= {"tn": best(0, False, False)}
    kinds = [kind for kind in expected if len(expected[kind]) >= 2]
    assert len(kinds) >= 2
    for kind in kinds:
        assert compare_maps.pick(run, "pneumonia", [kind, kind]) == [(key, kind) for key in expected[kind][:2]]
    ((near, _),) = compare_maps.pick(run, "pneumonia", ["uncertain"])
    gaps = {row["key"]: abs(row["y_score"] - limit) for row in rows}
    assert gaps[near] == min(gaps.values())


def test_an_image_that_was_not_tested_has_no_truth_of_another(runs: tuple[Path, Path], blobs: Path) -> None:
    from matplotlib.figure import Figure

    network = networks.load(runs[0], "cpu", classify=True)
    run, axis = tested_run.read(str(runs[0]), "one", network, ShardSet(blobs, "test")), Figure().subplots()
    for key in ("0", "zzz", str(run.matrix.keys[1])):
        compare_maps._column_title(axis, compare_maps.Picked(position=0, key=key, why=""), run, "pneumonia", name=False)
        assert ("truth not known" in axis.get_title()) == (key in ("0", "zzz"))


def test_one_figure_shows_the_same_images_for_both_runs(
    runs: tuple[Path, Path], blobs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = ShardSet(blobs, "test").index.key(int(ShardSet(blobs, "test").rows[3]))
    words = ["explain", *map(str, runs), "--pick", "uncertain", "--keys", key, "--device", "cpu"]
    assert cli.main([*words, "--out", str(tmp_path / "maps.png")]) == 0
    assert "2 images, 2 runs" in capsys.readouterr().err
    with Image.open(tmp_path / "maps.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert pixels.shape[0] > 2 * pixels.shape[1], "five rows of two columns"
    assert (np.ptp(pixels, axis=2) > 60).sum() > 5000, "maps are in colour"
    assert cli.main([*words, "--out", str(tmp_path / "maps.pdf")]) == 0
    assert (tmp_path / "maps.pdf").read_bytes().startswith(b"%PDF")


def test_one_image_of_several_runs_has_a_column_for_each(runs: tuple[Path, Path], blobs: Path, tmp_path: Path) -> None:
    words = ["explain", *map(str, runs), "--pick", "uncertain", "--device", "cpu", "--method", "hirescam"]
    assert cli.main([*words, "--out", str(tmp_path / "one.png")]) == 0
    with Image.open(tmp_path / "one.png") as image:
        assert image.size[1] < 1.7 * image.size[0], "three rows of two columns"


def test_what_cannot_be_compared_is_one_line(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = str(runs[0])
    for words, wanted in (
        ([one, "--keys", "none"], "--keys none: no such sample in split test"),
        ([one, "--pick", "best"], "must be tp, fp, fn, tn, uncertain"),
        ([one, "--pick", "tp", "--label", "mass"], "--label 'mass' is none that the runs have learnt; name one of"),
        ([one, "--pick", "tp", "--out", str(tmp_path / "x.gif")], "must end in .png or .pdf"),
        ([*map(str, runs)], "say with --pick tp,fp,fn,tn or --keys"),
        ([f"{one}/model.safetensors", "--pick", "tp"], "name the run"),
        ([one, "--pick", ",".join(["tp"] * 50)], "such images of pneumonia at threshold"),
    ):
        assert cli.main(["explain", *words, "--device", "cpu"]) == 2
        error = capsys.readouterr().err.strip().splitlines()
        assert wanted in error[-1] and error[-1].startswith("cxrdist: "), error
