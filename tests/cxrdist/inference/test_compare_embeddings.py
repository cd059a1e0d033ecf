"""`compare-embeddings`: the numbers of a real run are scikit-learn's, on the same images for all encoders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sklearn import metrics
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from cxrdist.core.backbones import build_backbone, save_encoder
from jobs import cli
from shards import read_card
from tests.cxrdist import findings
from tests.cxrdist.conftest import TINY
from tests.cxrdist.finetuning import trained

FACTS = {"arch": TINY, "image_size": 24, "mean": 0.4, "std": 0.2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shard sets with views, sexes and patients of two images; a trained run and an encoder of another size."""
    where = tmp_path_factory.mktemp("compare")
    for seed, name in enumerate(("one", "two")):
        findings.make(where, name=name, seed=seed, studies=True, blank=0.1)
    trained(where / "ft", where / "one", image_size=32, n_boot=0)
    torch.manual_seed(0)
    save_encoder(where / "other.safetensors", build_backbone(TINY, 24, stem="standard"), FACTS)
    return where


def compared(folder: Path, out: str, *words: str) -> tuple[Path, dict[tuple[str, str, str], dict[str, Any]]]:
    """The folder that the command made, and its numbers by encoder, measure and target."""
    where = folder / out
    runs = [str(folder / "ft"), str(folder / "other.safetensors")]
    assert cli.main(["compare-embeddings", *runs, "--out", str(where), "--device", "cpu", *words]) == 0
    rows = pq.read_table(where / "measures.parquet").to_pylist()
    return where, {(row["encoder"], row["measure"], row["target"]): row for row in rows}


def test_a_log_says_how_many_images_are_described(folder, monkeypatch, capsys):
    """As of a job, whose stderr is no terminal."""
    monkeypatch.setattr("shards.progress.LINE_EVERY", 0.0)
    where, _ = compared(folder, "told", "--shards", str(folder / "one"))
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("described ")]
    total = told[-1].split(" of ")[1].split(",")[0]
    assert int(total) > 0 and told[-1].startswith(f"described {total} of {total}, ") and where.is_dir()


def embedded(folder: Path, run: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Features and pneumonia (NaN where not known) of each split, as `cxrdist embed` writes them."""
    out = folder / f"{run}.parquet"
    words = ["embed", str(folder / run), "--shards", str(folder / "one"), "--out", str(out), "--device", "cpu"]
    assert cli.main(words) == 0
    table = pq.read_table(out)
    features = np.array(table["features"].to_pylist(), np.float32)
    split = np.array(table["split"].to_pylist())
    label = np.array([np.nan if v is None else v for v in table["label_pneumonia"].to_pylist()], np.float64)
    names = ("train", "val", "test")
    return {name: features[split == name] for name in names}, {name: label[split == name] for name in names}


def test_numbers_are_those_of_scikit_learn_on_embedded_features(folder: Path, capsys: pytest.CaptureFixture) -> None:
    _, found = compared(folder, "one-set", "--methods", "pca")
    shown = capsys.readouterr().out
    for run in ("ft", "other.safetensors"):
        features, truth = embedded(folder, run)
        known = {split: ~np.isnan(values) for split, values in truth.items()}
        scaler = StandardScaler().fit(features["train"])
        best: tuple[float, float] = (-1.0, -1.0)
        for penalty in (1.0, 0.1, 0.01, 0.001):  # of equals the strongest
            n = int(known["train"].sum())
            model = LogisticRegression(C=1 / (penalty * n), max_iter=500, tol=1e-4)
            model.fit(scaler.transform(features["train"])[known["train"]], truth["train"][known["train"]])
            val, test = (
                float(
                    metrics.roc_auc_score(
                        truth[split][known[split]],
                        model.decision_function(scaler.transform(features[split])[known[split]]),
                    )
                )
                for split in ("val", "test")
            )
            best = max(best, (val, test), key=lambda pair: pair[0])
        probe = found[run, "probe_auroc", "pneumonia"]
        assert probe["value"] == pytest.approx(best[1], abs=0.02)
        assert f"{probe['value']:.3f} ({probe['ci_low']:.3f}-{probe['ci_high']:.3f})" in shown or "macro" in shown
        units = features["test"] / np.linalg.norm(features["test"], axis=1, keepdims=True)
        silhouette = metrics.silhouette_score(units[known["test"]], truth["test"][known["test"]])
        assert found[run, "silhouette", "pneumonia"]["value"] == pytest.approx(silhouette, abs=1e-4)
        assert found[run, "silhouette", "pneumonia"]["images"] == known["test"].sum()
    assert found["ft", "probe_auroc", "pneumonia"]["value"] > 0.9, "it was trained on this"
    assert {name for name, _, _ in found} == {"ft", "other.safetensors", "untrained"}


def test_several_sets_show_whether_features_tell_them_apart(folder: Path) -> None:
    where, found = compared(folder, "two-sets", "--shards", f"{folder / 'one'},{folder / 'two'}", "--colour", "view")
    for encoder in ("ft", "other.safetensors", "untrained"):
        for target in ("view", "sex", "dataset"):
            row = found[encoder, "probe_auroc", target]
            assert 0.2 < row["value"] < 0.8, "drawn images know neither"
            assert row["images"] == (48 if target == "view" else 72)
        assert found[encoder, "pair_auroc", "patient"]["images"] == 72
    told = json.loads((where / "compare.json").read_text())
    assert told["datasets"] == {name: read_card(folder / name).sha256 for name in ("one", "two")}
    assert told["images"] == {"train": 180, "test": 72, "val": 80} and told["labels"] == ["edema", "pneumonia"]
    maps = pq.read_table(where / "maps.parquet").to_pandas()
    assert len(maps) == 72 * 3 * 2 and set(maps["method"]) == {"pca", "tsne"}
    first, second = (maps[(maps.encoder == name) & (maps.method == "tsne")] for name in ("ft", "untrained"))
    assert list(zip(first.dataset, first.key, strict=True)) == list(zip(second.dataset, second.key, strict=True))
    cka = pq.read_table(where / "cka.parquet").to_pandas().set_index(["encoder", "other"])
    assert len(cka) == 9 and cka.loc[("ft", "ft"), "cka"] == pytest.approx(1)
    assert cka.loc[("ft", "untrained"), "cka"] == pytest.approx(cka.loc[("untrained", "ft"), "cka"])
    for name in ("maps.png", "cka.png"):
        with Image.open(where / name) as picture:
            assert np.asarray(picture.convert("L")).std() > 10 and min(picture.size) > 300


def test_a_limit_takes_as_many_images_of_each_set(folder: Path) -> None:
    both = f"{folder / 'one'},{folder / 'two'}"
    words = ["--shards", both, "--limit", "40", "--untrained", "false", "--methods", "pca", "--labels", "edema"]
    where, found = compared(folder, "limited", *words)
    assert json.loads((where / "compare.json").read_text())["images"] == {"train": 40, "test": 40, "val": 40}
    assert found["ft", "pair_auroc", "patient"]["images"] < 40
    assert {target for _, measure, target in found if measure == "knn_auroc"} == {"edema"}
    again, _ = compared(folder, "limited", *words)
    assert pq.read_table(again / "measures.parquet").to_pylist() == list(found.values()), "made again, the same"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--train_split", "test"], "probes must be tested on other images"),
        (["--labels", "cough"], "--labels cough: not a label of all shard sets; these are: edema, pneumonia"),
        (["--colour", "hair"], "--colour hair: must be one of edema, pneumonia, view, sex, dataset"),
        (["--methods", "isomap"], "must be pca, tsne or umap"),
        (["--methods", ","], "names no map"),
        (["--split", "dev"], "dev"),
        (["--shards", "{one},{one}"], "is named twice"),
        (["--out", "{one}"], "holds something else"),
        (["--limit", "19"], "limit"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture, words: list[str], message: str
) -> None:
    own = [word.replace("{one}", str(folder / "one")) for word in words]
    out = [] if "--out" in words else ["--out", str(tmp_path / "new")]
    assert cli.main(["compare-embeddings", str(folder / "ft"), "--device", "cpu", *out, *own]) == 2
    error = capsys.readouterr().err
    assert message in error.splitlines()[-1] and "Traceback" not in error
    assert not (tmp_path / "new").exists()


def test_an_encoder_whose_features_overflow_is_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    backbone = build_backbone(TINY, 24, stem="standard")
    with torch.no_grad():
        for weight in backbone.parameters():
            weight.fill_(1e30)
    save_encoder(tmp_path / "broken.safetensors", backbone, FACTS)
    words = ["--shards", str(folder / "one"), "--out", str(tmp_path / "out"), "--device", "cpu", "--methods", "pca"]
    assert cli.main(["compare-embeddings", str(tmp_path / "broken.safetensors"), *words]) == 2
    assert "broken.safetensors: its features are not all finite" in capsys.readouterr().err
