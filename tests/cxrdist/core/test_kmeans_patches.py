"""The dictionary of kmeans-patches: what an activation is, what it is a function of, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from cxrdist.core.kmeans_config import KMeansConfig
from cxrdist.core.kmeans_patches import CONTRAST, WHITENING, PatchFeatures, learn, normalised, of_state
from cxrdist.errors import InputError
from tests.cxrdist.conftest import drawn

SMALL = KMeansConfig(centres=20, patch=5, grid=3, patches=3000, passes=3)


def images(count: int = 60) -> torch.Tensor:
    return torch.from_numpy(drawn(count, 0)[0])[:, None]


def learnt(config: KMeansConfig = SMALL, batch: int = 16, of: torch.Tensor | None = None) -> PatchFeatures:
    pool = images() if of is None else of
    return learn(iter(pool.split(batch)), len(pool), config)


@pytest.fixture(scope="module")
def features() -> PatchFeatures:
    return learnt()


def test_features_are_triangle_activations_averaged_over_the_cells_of_a_grid(features):
    image = images(1).float() / 255
    pixels = image[0, 0].double().numpy()
    mean, whitening, centres = (
        value.double().numpy() for value in (features.mean, features.whitening, features.centres)
    )
    cells: dict[tuple[int, int], list[np.ndarray]] = {}
    for y in range(24):
        for x in range(24):
            patch = pixels[y : y + 5, x : x + 5].ravel()
            patch = (patch - patch.mean()) / np.sqrt(patch.var() + CONTRAST)
            distance = np.linalg.norm((patch - mean) @ whitening - centres, axis=1)
            cells.setdefault((y // 8, x // 8), []).append(np.maximum(0, distance.mean() - distance))
    expected = np.concatenate([np.mean(cells[y, x], 0) for y in range(3) for x in range(3)])
    found = features(image)
    assert found.shape == (1, features.num_features) == (1, 180)
    assert found[0].numpy() == pytest.approx(expected, abs=1e-4)


def test_the_dictionary_is_a_function_of_images_and_settings(features):
    with threadpool_limits(2):
        again = learnt(batch=60)
    for name, value in features.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    other = learnt(KMeansConfig(centres=20, patch=5, grid=3, patches=3000, passes=3, seed=1))
    assert not torch.equal(other.centres, features.centres)


def test_whitened_patches_have_the_variance_that_the_damping_leaves():
    pool = images()
    features = learnt(KMeansConfig(centres=2, patch=5, grid=3, patches=60_000, passes=1))
    patches = normalised(torch.nn.functional.unfold(pool.float() / 255, 5).transpose(1, 2).reshape(-1, 25))
    white = ((patches - features.mean) @ features.whitening).double()
    values = np.linalg.eigvalsh(np.cov(patches.double().numpy(), rowvar=False))
    expected = values / (values + WHITENING)
    assert np.linalg.eigvalsh(np.cov(white.numpy(), rowvar=False)) == pytest.approx(expected, abs=0.05)


def test_tone_changes_the_features_little(features):
    """Brightness and contrast of a patch are taken out; what is left is the constant against flat patches' noise."""
    plain = images(8).float() / 255
    darker = features(plain * 0.7 + 0.1)
    assert torch.corrcoef(torch.stack([features(plain).ravel(), darker.ravel()]))[0, 1] > 0.99


def test_images_that_are_computed_in_parts_have_the_same_features(features, monkeypatch):
    whole = features(images(6).float() / 255)
    monkeypatch.setattr("cxrdist.core.kmeans_patches._MOST_ACTIVATIONS", 2 * 64 * 20)
    assert torch.allclose(features(images(6).float() / 255), whole, atol=1e-6)


def test_a_state_says_the_shape_of_its_dictionary(features):
    state = features.state_dict()
    again = of_state(state, "file", prefix="")
    again.load_state_dict(state)
    assert torch.equal(again(images(2).float() / 255), features(images(2).float() / 255))
    del state["grid"]
    with pytest.raises(InputError, match="file holds no dictionary of kmeans-patches"):
        of_state(state, "file", prefix="")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"centres": 5000}, "centres is 5000, more than the 3000 patches"),
        ({"patch": 28}, r"kmeans.patch 28 and kmeans.grid 3 do not fit into images of 28 pixels"),
    ],
)
def test_settings_that_the_images_cannot_serve_are_refused(changes, words):
    with pytest.raises(InputError, match=words):
        learnt(KMeansConfig(**{"centres": 20, "patch": 5, "grid": 3, "patches": 3000, **changes}))
