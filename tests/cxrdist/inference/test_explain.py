"""Scoring files, writing features, heat maps, the pointing game and the page to browse embeddings."""

from __future__ import annotations

import copy
import csv
import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from cxrdist.core import weights
from cxrdist.errors import InputError
from cxrdist.finetune import classifier
from cxrdist.finetune.classifier import Classifier
from cxrdist.finetune.config import FinetuneConfig
from cxrdist.inference import explain, heatmaps, pointing_game, predict
from cxrdist.inference import network as networks
from cxrdist.inference.embed import embed
from cxrdist.inference.pointing_game import Box
from jobs import cli
from shards import ShardSet
from shards.convert.config import NihConfig
from shards.phantom import write_nih
from tests.cxrdist.conftest import TINY

LABELS = ["cardiomegaly", "pleural_effusion", "infiltration"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn X-rays in NIH's layout, 1024 pixels being the frame of their boxes and 80 their size."""
    out = tmp_path_factory.mktemp("explain") / "nih"
    write_nih(out, n_patients=26, seed=1, size=80, workers=0)
    (out / "phantom.json").unlink()  # so that it passes for the published set, boxes included
    return out


@pytest.fixture(scope="module")
def shards_path(source: Path) -> Path:
    from shards.convert.engine import convert
    from shards.convert.registry import plan

    config = NihConfig(src=str(source), out=str(source.parent / "shards"), size=72, workers=1)
    convert(plan(config), config, say=lambda line: None)
    return source.parent / "shards"


@pytest.fixture(scope="module")
def run(shards_path: Path) -> Path:
    """A real, hardly trained fine-tuning."""
    out = shards_path.parent / "run"
    words = ["--shards", str(shards_path), "--out", str(out), "--arch", TINY, "--image_size", "48"]
    words += ["--labels", ",".join(LABELS), "--epochs", "1", "--min_steps", "3", "--n_boot", "0", "--device", "cpu"]
    assert cli.main(["finetune", *words]) == 0
    return out


@pytest.fixture(scope="module")
def network(run: Path) -> networks.Encoder:
    return networks.load(run, "cpu", classify=True)


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


def test_embedding_follows_the_index_and_holds_the_backbones_features(
    run: Path, shards_path: Path, network: networks.Encoder, tmp_path: Path
) -> None:
    out = tmp_path / "features.parquet"
    assert cli.main(["embed", str(run), "--shards", str(shards_path), "--out", str(out), "--device", "cpu"]) == 0
    table = pq.read_table(out)
    whole = ShardSet(shards_path)
    assert table["key"].to_pylist() == whole.index.keys(whole.rows).tolist()
    features = np.stack(table["features"].to_pylist())
    assert features.shape == (len(whole), network.module.num_features)
    with torch.no_grad():
        direct = network.module(network.pixels(whole.images(np.array([3]), 48)))[0].numpy()
    np.testing.assert_allclose(features[3], direct, rtol=1e-4, atol=1e-5)
    assert set(table["split"].to_pylist()) == {"train", "val", "test"}
    assert table["label_cardiomegaly"].to_pylist() == whole.index.label("cardiomegaly")[whole.rows].tolist()
    assert table.schema.metadata[b"cxrdist.dataset"] == b"nih"

    test = ShardSet(shards_path, "test")
    embed(network, test, tmp_path / "test.parquet", quiet=True)
    part = pq.read_table(tmp_path / "test.parquet").to_pylist()
    rows = {row["key"]: row for row in table.to_pylist()}
    assert len(part) == len(test)
    assert all(row == rows[row["key"]] for row in part)


def test_embedding_replaces_an_embedding_and_nothing_else(
    network: networks.Encoder, shards_path: Path, tmp_path: Path
) -> None:
    out = tmp_path / "features.parquet"
    out.write_text("a thesis")
    with pytest.raises(InputError, match="not a file of features"):
        embed(network, ShardSet(shards_path, "val"), out, quiet=True)
    assert out.read_text() == "a thesis"
    out.unlink()
    embed(network, ShardSet(shards_path, "val"), out, quiet=True)
    embed(network, ShardSet(shards_path, "test"), out, quiet=True)
    assert set(pq.read_table(out)["split"].to_pylist()) == {"test"}


def test_an_encoder_can_be_embedded_but_not_asked_for_scores(
    network: networks.Encoder, shards_path: Path, tmp_path: Path
) -> None:
    from cxrdist.core.backbones import save_encoder

    facts = {"arch": TINY, "image_size": 48, "stem": "standard", "mean": 0.5, "std": 0.2}
    save_encoder(tmp_path / "encoder.safetensors", network.module, facts)
    alone = networks.load(tmp_path, "cpu")
    assert alone.classifier is None
    embed(alone, ShardSet(shards_path, "val"), tmp_path / "val.parquet", quiet=True)
    with pytest.raises(InputError, match="without a classifier"):
        networks.load(tmp_path / "encoder.safetensors", "cpu", classify=True)


def test_grad_cam_of_the_last_maps_under_a_linear_head_is_the_class_activation_map(network: networks.Encoder) -> None:
    """Selvaraju et al. 2017, section 3: with average pooling and a linear head they are the same up to 1/(hw)."""
    assert network.classifier is not None
    model = copy.deepcopy(network.classifier)
    linear = next(part for part in model.head.modules() if isinstance(part, nn.Linear))
    with torch.no_grad():  # features of a ResNet are 0 and above: label 1 is spoken for, label 0 is not
        linear.weight[1] = torch.rand(linear.in_features, generator=torch.Generator().manual_seed(1))
        linear.weight[0] = -linear.weight[1]
    maps: list[torch.Tensor] = []
    hook = model.backbone.get_submodule("layer4").register_forward_hook(lambda *call: maps.append(call[2].detach()))
    pixels = torch.randn(2, 1, 96, 96, generator=torch.Generator().manual_seed(0))
    heat = heatmaps.grad_cam(model, pixels.clone(), 1, "layer4")
    assert heatmaps.grad_cam(model, pixels.clone(), 0, "layer4").max() == 0
    hook.remove()
    cells = maps[0].shape[2] * maps[0].shape[3]
    assert cells > 1
    cam = torch.relu(torch.einsum("bchw,c->bhw", maps[0], linear.weight[1].detach() / cells))
    grown = nn.functional.interpolate(cam[:, None], size=(96, 96), mode="bilinear", align_corners=False)[:, 0].numpy()
    assert grown.max(axis=(1, 2)).min() > 0
    np.testing.assert_allclose(heat, grown, rtol=1e-4, atol=1e-4 * grown.max())


def test_grad_cam_takes_the_deepest_maps_that_still_show_something(network: networks.Encoder) -> None:
    model = network.classifier
    assert model is not None
    layer = heatmaps.pick_layer(model)
    pixels = torch.zeros(1, 1, 48, 48)
    sizes: list[Any] = []
    hook = model.backbone.get_submodule(layer).register_forward_hook(lambda *call: sizes.append(call[2].shape[2]))
    model(pixels)
    hook.remove()
    assert sizes[0] >= heatmaps.MIN_CELLS
    assert heatmaps.pick_layer(model, "layer1") == "layer1"
    with pytest.raises(InputError, match="no such feature map"):
        heatmaps.pick_layer(model, "layer9")


@pytest.mark.parametrize(("size", "cells"), [(28, 4), (64, 4), (128, 8), (224, 14)])
def test_maps_come_from_the_layer_whose_maps_pointed_best_at_each_size(size: int, cells: int) -> None:
    config = FinetuneConfig(shards="x", out="y", arch="resnet18", image_size=size, stem="standard")
    model = classifier.build(config, ("mass",), (0.5, 0.25)).eval()
    sides = heatmaps.feature_maps(model)
    assert sides[heatmaps.pick_layer(model)] == cells


def test_a_vision_transformers_tokens_make_a_map_without_the_class_token() -> None:
    config = FinetuneConfig(shards="x", out="y", arch="vit_tiny_patch16_224", image_size=64)
    model = classifier.build(config, ("mass",), (0.5, 0.25)).eval()
    layer = heatmaps.pick_layer(model)
    assert layer == "blocks.11.norm1"
    pixels = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    maps = heatmaps.class_maps(model, pixels, [0], layer, "hirescam")
    assert maps.shape == (1, 2, 4, 4)
    tokens: list[torch.Tensor] = []
    hook = model.backbone.get_submodule(layer).register_forward_hook(lambda *call: tokens.append(call[2]))
    logits = model(pixels)
    hook.remove()
    (slope,) = torch.autograd.grad(logits.sum(), tokens[0])
    direct = torch.relu((slope * tokens[0]).sum(2)[:, 1:]).reshape(2, 4, 4).detach().numpy()
    np.testing.assert_allclose(maps[0], direct, rtol=1e-4, atol=1e-7)
    assert direct.max() > 0


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


def test_a_network_without_maps_is_referred_to_occlusion() -> None:
    model = Classifier(_Corner(), nn.Linear(2, 1), {"image_size": 32, "labels": ["a"], "arch": "corner"}).eval()
    model.backbone.norm = nn.Identity()
    with pytest.raises(InputError, match="corner has no feature maps for Grad-CAM; use --method occlusion"):
        heatmaps.pick_layer(model)


def test_the_kinds_of_maps_are_what_their_papers_say() -> None:
    draw = torch.Generator().manual_seed(0)
    maps, slope = torch.rand(2, 5, 3, 3, generator=draw), torch.randn(2, 5, 3, 3, generator=draw)
    numbers, slopes = maps.numpy(), slope.numpy()
    found = {name: make(maps, slope).numpy() for name, make in heatmaps.CAMS.items()}
    weights = slopes.mean(axis=(2, 3))
    np.testing.assert_allclose(
        found["gradcam"], np.maximum(np.einsum("bc,bchw->bhw", weights, numbers), 0), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(found["hirescam"], np.maximum((slopes * numbers).sum(1), 0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        found["layercam"], np.maximum((np.maximum(slopes, 0) * numbers).sum(1), 0), rtol=1e-4, atol=1e-6
    )
    # Where one pattern explains everything, its strength in each cell is the first component.
    strength = torch.rand(1, 1, 4, 4, generator=draw)
    single = strength * torch.rand(1, 6, 1, 1, generator=draw)
    eigen = heatmaps.CAMS["eigencam"](single, single)[0].numpy().ravel()
    above = np.maximum((strength - strength.mean()).numpy().ravel(), 0)
    np.testing.assert_allclose(eigen / eigen.max(), above / above.max(), atol=1e-4)


def test_energy_is_the_share_of_a_map_inside_the_boxes() -> None:
    heat = np.zeros((10, 10), np.float32)
    heat[2, 7], heat[8, 1] = 3, 1
    assert pointing_game.energy(heat, [Box("a", 0.7, 0.2, 0.8, 0.3)]) == pytest.approx(0.75)
    assert pointing_game.energy(np.zeros((10, 10), np.float32), [Box("a", 0, 0, 1, 1)]) == 0
    assert pointing_game.energy(np.ones((10, 10), np.float32), [Box("a", 0, 0, 0.5, 1)]) == pytest.approx(0.5)


def test_random_weights_are_others_and_leave_the_run_as_it_is(network: networks.Encoder) -> None:
    assert network.classifier is not None
    before = copy.deepcopy(network.classifier.state_dict())
    fresh = heatmaps.untrained(network.classifier)
    same = {
        name for name, value in fresh.state_dict().items() if torch.equal(value, before[name]) and value.numel() > 1
    }
    assert not {name for name in same if name.endswith("weight") and before[name].ndim > 1}
    assert all(torch.equal(value, network.classifier.state_dict()[name]) for name, value in before.items())


class _Corner(nn.Module):
    """Two features: the sum of the pixels of the upper left and of the lower right 8 x 8."""

    num_features = 2

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.stack([images[:, 0, :8, :8].sum((1, 2)), images[:, 0, -8:, -8:].sum((1, 2))], dim=1)


def test_occlusion_lights_up_what_the_model_reads_and_nothing_else() -> None:
    head = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.eye(2))
    model = Classifier(_Corner(), head, {"image_size": 32, "labels": ["a", "b"], "arch": "corner"}).eval()
    heat = heatmaps.occlusion(model, torch.ones(1, 1, 32, 32), [0, 1], patch=4)
    assert heat[0, :8, :8].min() > 0 and heat[1, -8:, -8:].min() > 0
    assert heat[0, 12:, :].max() == 0 and heat[0, :, 12:].max() == 0
    assert heat[1, :20, :].max() == 0
    assert heat[0, 3, 3] == pytest.approx(16)  # a patch of 4 x 4 ones that lies wholly inside
    with pytest.raises(InputError, match="patch 40"):
        heatmaps.occlusion(model, torch.ones(1, 1, 32, 32), [0], patch=40)


def test_boxes_of_nih_count_in_its_1024_frame_whatever_the_size_of_the_files(shards_path: Path, source: Path) -> None:
    found = pointing_game.read_boxes(ShardSet(shards_path, "test"))
    rows = list(csv.reader((source / "BBox_List_2017.csv").read_text().splitlines()))[1:]
    assert sum(len(own) for own in found.values()) == len(rows) > 10
    name, _, x, y, w, h = rows[0]
    first = found[name.removesuffix(".png")][0]
    edges = (first.left, first.top, first.right, first.bottom)
    wanted = (float(x) / 1024, float(y) / 1024, (float(x) + float(w)) / 1024, (float(y) + float(h)) / 1024)
    assert edges == pytest.approx(wanted, abs=1e-6)


def test_boxes_are_cut_to_the_centre_square_that_a_model_sees() -> None:
    row = {"label": "mass", "x": 10.0, "y": 50.0, "width": 60.0, "height": 25.0}
    box = pointing_game._in_view(row, 100, 200)  # the square spans x = 50..150
    assert box == Box("mass", 0.0, 0.5, pytest.approx(0.2), 0.75)  # pyright: ignore[reportArgumentType]
    assert pointing_game._in_view(row | {"width": 30.0}, 100, 200) is None


def test_pointing_game_counts_the_hottest_point() -> None:
    heat = np.zeros((10, 10), np.float32)
    heat[2, 7] = 1
    assert pointing_game.peak(heat) == pytest.approx((0.75, 0.25))
    assert pointing_game.is_hit(heat, [Box("a", 0.7, 0.2, 0.8, 0.3)])
    assert not pointing_game.is_hit(heat, [Box("a", 0.0, 0.0, 0.7, 1.0)])
    assert not pointing_game.is_hit(
        np.zeros((10, 10), np.float32), [Box("a", 0, 0, 1, 1)]
    )  # nothing speaks for the label
    assert pointing_game.covered([Box("a", 0, 0, 0.5, 1), Box("a", 0.25, 0, 0.75, 1)]) == pytest.approx(0.75)


def test_interval_of_the_hit_rate_widens_when_images_share_patients() -> None:
    hits = np.tile([1, 0], 50).astype(bool)
    low, high = pointing_game.interval(hits, np.arange(100))
    assert 0.38 < low < 0.43 and 0.57 < high < 0.62  # 0.5 +- 1.96 * sqrt(0.25 / 100)
    few = pointing_game.interval(np.repeat([True, False], 50), np.repeat(np.arange(20), 5))
    assert few[1] - few[0] > 1.7 * (high - low)


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
