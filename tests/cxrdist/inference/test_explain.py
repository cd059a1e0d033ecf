"""Heat maps as pictures beside their pointing game; maps of a card are those of the CPU."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from cxrdist.inference import explain
from cxrdist.inference import network as networks
from jobs import cli
from shards import ShardSet
from tests.cxrdist.inference.conftest import LABELS


@pytest.mark.gpu
@pytest.mark.parametrize("method", explain.METHODS)
def test_maps_made_on_a_card_are_those_of_the_cpu(run: Path, shards_path: Path, method: str) -> None:
    images = ShardSet(shards_path, "test").images(np.arange(3), 48)
    maps = []
    for device in ("cpu", "cuda"):
        explainer = explain.Explainer(networks.load(run, device, classify=True), method)
        found = [explainer.explain(image, LABELS, np.zeros(len(LABELS))).heat for image in images]
        maps.append(np.stack([heat[label] for heat in found for label in LABELS]))
    on_cpu, on_card = maps
    assert on_cpu.shape == on_card.shape == (9, 48, 48) and on_cpu.max() > 0
    np.testing.assert_allclose(on_card, on_cpu, atol=1e-3 * on_cpu.max())


def test_explain_writes_pictures_and_a_pointing_game_that_its_rows_reproduce(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "maps"
    words = ["explain", str(run), "--out", str(out), "--count", "2", "--split", "train", "--device", "cpu"]
    assert cli.main(words) == 0
    about = json.loads((out / "explain.json").read_text())
    pictures = sorted(out.glob("*/*.png"))
    assert about["panels"] == len(pictures) == 6
    picture = cv2.imread(str(pictures[0]))
    assert picture is not None and picture.shape == (344, 640, 3)
    rows = pq.read_table(out / "pointing.parquet").to_pylist()
    printed = capsys.readouterr().out
    for label, row in about["pointing_game"].items():
        own = [r for r in rows if r["label"] == label]
        assert (row["n"], row["hits"]) == (len(own), sum(r["hit"] for r in own))
        assert row["ci_low"] <= row["rate"] <= row["ci_high"]
        assert row["energy"] == pytest.approx(np.mean([r["energy"] for r in own]), abs=1e-6)
        assert row["random_rate"] == pytest.approx(np.mean([r["random_hit"] for r in own]))
        assert re.search(rf"{label} +{row['hits']} +{row['n']} ", printed)
    assert cli.main(words) == 0  # the same folder again


def test_explain_leaves_a_foreign_folder_alone_and_names_unknown_labels(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert cli.main(["explain", str(run), "--out", str(tmp_path), "--device", "cpu"]) == 2
    assert cli.main(["explain", str(run), "--out", str(tmp_path / "x"), "--labels", "hernia", "--device", "cpu"]) == 2
    errors = capsys.readouterr().err
    assert "holds something else" in errors and "'hernia'" in errors and "cardiomegaly" in errors
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_occlusion_explains_too(network: networks.Encoder, run: Path, shards_path: Path, tmp_path: Path) -> None:
    found = explain.explain(
        str(run), network, ShardSet(shards_path, "test"), tmp_path / "o", method="occlusion",
        labels=["pleural_effusion"], count=1, limit=1, patch=16,
    )  # fmt: skip
    assert found["panels"] == 1 and found["pointing_game"]["pleural_effusion"]["n"] == 1
