"""The page to browse embeddings: what it holds, how images become a map, and that a browser shows it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cxrdist.errors import InputError
from cxrdist.inference import explore
from cxrdist.inference import network as networks
from jobs import cli
from shards import ShardSet
from tests import browser
from tests.cxrdist.finetuning import trained


@pytest.fixture(scope="module")
def run(blobs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real, hardly trained fine-tuning."""
    return trained(tmp_path_factory.mktemp("explore") / "run", blobs, epochs=1, min_steps=5, n_boot=0).path


@pytest.fixture(scope="module")
def page(run: Path, blobs: Path) -> Path:
    """A map of the test split by the model file alone, which has no predictions beside its scores."""
    model, out = str(run / "model.safetensors"), run.parent / "map.html"
    assert cli.main(["explore", model, "--shards", str(blobs), "--out", str(out), "--device", "cpu"]) == 0
    return out


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_the_page_needs_no_network_and_shows_every_sample(page: Path, blobs: Path) -> None:
    text = page.read_text()
    test = ShardSet(blobs, "test")
    data = data_of(text)
    assert data["key"] == test.index.keys(test.rows).tolist()
    assert len(data["x"]) == len(data["numbers"]["score: pneumonia"]) == len(test)
    assert data["classes"] == {"pneumonia": test.index.label("pneumonia")[test.rows].tolist()}, "no view, no sex here"
    assert not re.search(r"https?:|//[a-z]|<link|src=|import\s", re.sub(r'"sprite":"[^"]*"', "", text))
    assert data["sprite"].startswith("data:image/jpeg;base64,")


def test_the_page_opens_with_what_tells_images_apart() -> None:
    known = {
        "view": ["PA", "PA"], "sex": [None, None], "label_mass": [1, 0], "label_edema": [0, 1], "label_hernia": [0, 0]
    }  # fmt: skip
    assert list(explore.classes_of(known, ["edema", "hernia"])) == ["edema", "mass", "hernia", "view"]


def test_a_browser_draws_the_map_and_shows_the_image_under_the_pointer(page: Path, tmp_path: Path) -> None:
    # What a hand would do: point at the fourth image's dot, then colour by the score.
    point = """
      const [x, y] = place(3), r = canvas.getBoundingClientRect();
      canvas.dispatchEvent(new MouseEvent("mousemove", { clientX: r.left + x, clientY: r.top + y }));
      const seen = [over, d.key[over], getComputedStyle(picture).visibility];
      select.value = "score: pneumonia"; select.dispatchEvent(new Event("change"));
      return [...seen, document.getElementById("facts").textContent, legend.textContent];
    """
    at, key, visible, facts, legend = browser.used(page, point, tmp_path, size=(1200, 800))
    data = data_of(page.read_text())
    assert data["key"][at] == key and visible == "visible"
    assert np.hypot(data["x"][at] - data["x"][3], data["y"][at] - data["y"][3]) < 0.02, "the dot that was pointed at"
    assert key in facts and f"{data['numbers']['score: pneumonia'][at]:.3f}" in facts
    assert legend == "blue 0 … red 1"
    shot = tmp_path / "page.png"
    browser.photograph(page, shot, size=(1200, 800))
    with Image.open(shot) as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    red, green, blue = pixels.T.astype(int)
    dots = [
        ((red > 180) & (green > 90) & (green < 160) & (blue < 120)).sum(),
        ((blue > 180) & (green > 110) & (green < 190) & (red < 110)).sum(),
    ]
    assert min(dots) > 100, "positive and negative dots"


def test_the_same_seed_draws_the_same_sample(blobs: Path) -> None:
    train = ShardSet(blobs, "train")
    first = explore.sample(train, 10, 3)
    assert len(set(first.tolist())) == 10
    np.testing.assert_array_equal(first, explore.sample(train, 10, 3))
    assert not np.array_equal(first, explore.sample(train, 10, 4))
    assert len(explore.sample(train, 10_000, 0)) == len(train)


def test_principal_components_find_the_plane_that_data_lie_in() -> None:
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(60, 2)) * [5.0, 2.0]
    turn, _ = np.linalg.qr(rng.normal(size=(16, 16)))
    flat, note = explore.flatten((plane @ turn[:2]).astype(np.float32) + 3, "pca", 0)
    distances = np.linalg.norm(plane[:, None] - plane[None], axis=2)
    np.testing.assert_allclose(np.linalg.norm(flat[:, None] - flat[None], axis=2), distances, atol=1e-4)
    assert "variance" in note
    with pytest.raises(InputError, match="too few"):
        explore.flatten(np.zeros((2, 4), np.float32), "pca", 0)


@pytest.mark.parametrize("method", ["tsne", pytest.param("umap", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:n_jobs value")
def test_far_groups_stay_apart(method: str) -> None:
    if method == "umap":
        pytest.importorskip("umap", reason="umap: the extra `explore` is not installed")
    rng = np.random.default_rng(0)
    groups = np.concatenate([rng.normal(0, 1, (20, 8)), rng.normal(12, 1, (20, 8))]).astype(np.float32)
    flat, note = explore.flatten(groups, method, 0)
    again, _ = explore.flatten(groups, method, 0)
    assert flat.shape == (40, 2) and np.array_equal(flat, again) and "mean little" in note
    centres = flat[:20].mean(0), flat[20:].mean(0)
    spread = max(
        np.linalg.norm(flat[:20] - centres[0], axis=1).mean(), np.linalg.norm(flat[20:] - centres[1], axis=1).mean()
    )
    assert np.linalg.norm(centres[0] - centres[1]) > 2 * spread


def test_umap_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explore.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'cxrdist\[explore\]'; or take pca or tsne"):
        explore.flatten(np.zeros((8, 4), np.float32), "umap", 0)


def test_strings_in_the_page_cannot_end_its_script() -> None:
    page = explore._page("<b>", "note", {"key": ["</script><script>alert(1)</script>"], "sprite": ""})
    assert "<script>alert" not in page and "<title>&lt;b&gt;</title>" in page
    assert data_of(page)["key"] == ["</script><script>alert(1)</script>"]


def test_a_page_replaces_a_page_and_nothing_else(run: Path, blobs: Path, tmp_path: Path, capsys) -> None:
    other = tmp_path / "notes.html"
    for mine in ("mine", "#!/bin/sh\ncxrdist explore runs/ft\n"):
        other.write_text(mine)
        assert cli.main(["explore", str(run), "--out", str(other), "--device", "cpu"]) == 2
        assert "is not a page of cxrdist explore" in capsys.readouterr().err and other.read_text() == mine
    network = networks.load(run, "cpu")
    for limit in (20, 10):
        count = explore.explore(network, ShardSet(blobs, "test"), tmp_path / "p.html", labels=[], limit=limit)
        assert count == limit
