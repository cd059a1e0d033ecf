"""Hashes and thumbnails: one X-ray is near itself in other sizes and compressions, and far from others."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.fft import dctn

from shards.overlap.fingerprint import LIKE, MOST_BITS, MOST_COARSE_BITS, hashes, likeness, thumbnail
from tests.shards.convert.conftest import grey_file


def compressed(pixels: np.ndarray, quality: int) -> np.ndarray:
    data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    image = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    assert image is not None
    return image


def resized(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)


def gamma(pixels: np.ndarray, power: float) -> np.ndarray:
    return np.rint(255 * (pixels / 255) ** power).astype(np.uint8)


COPIES = {
    "JPEG of quality 20": lambda pixels: compressed(pixels, 20),
    "64 pixels": lambda pixels: resized(pixels, 64, 64),
    "48 pixels, JPEG of quality 50": lambda pixels: compressed(resized(pixels, 48, 48), 50),
    "squeezed": lambda pixels: resized(pixels, 224, 180),
    "brighter": lambda pixels: gamma(pixels, 0.7),
    "darker": lambda pixels: gamma(pixels, 1.4),
}


def differing(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.bitwise_count(one ^ other).sum(axis=-1, dtype=int)


def test_bits_are_the_signs_of_the_cosine_transform() -> None:
    thumbnails = np.random.default_rng(0).integers(0, 256, (5, 32, 32)).astype(np.uint8)
    found = hashes(thumbnails)
    for image, words in zip(thumbnails, found, strict=True):
        low = np.asarray(dctn(image.astype(float)))[1:17, 1:17] > 0
        wanted = np.r_[low[:8, :8].ravel(), low[:8, 8:].ravel(), low[8:].ravel()]
        bits = np.unpackbits(words.view(np.uint8)).astype(bool)
        assert sorted(bits) == sorted(wanted) and np.array_equal(bits[:64], wanted[:64])


def test_likeness_is_one_for_an_image_itself_whatever_its_brightness_and_contrast() -> None:
    image = np.random.default_rng(0).integers(0, 100, (1, 32, 32)).astype(np.uint8)
    assert likeness(image, image)[0] == pytest.approx(1, abs=1e-5)
    assert likeness(image, 2 * image + 20)[0] == pytest.approx(1, abs=1e-5)
    assert likeness(image, 255 - image)[0] == pytest.approx(-1, abs=1e-5)
    assert likeness(image, np.full_like(image, 7))[0] == pytest.approx(0, abs=1e-4), "of nothing nothing is like"


@pytest.fixture(scope="module")
def real(shared_data: Path) -> list[np.ndarray]:
    """Sixty real X-rays of as many patients, 224 x 224."""
    files = sorted((shared_data / "chest_xray" / "train" / "PNEUMONIA").iterdir())
    first = {path.name.split("_")[0]: path for path in reversed(files)}
    return [grey_file(path) for path in sorted(first.values())[:60]]


@pytest.mark.parametrize("copy", COPIES)
def test_copies_of_real_xrays_are_found(copy: str, real: list[np.ndarray]) -> None:
    one = np.stack([thumbnail(pixels) for pixels in real])
    other = np.stack([thumbnail(COPIES[copy](pixels)) for pixels in real])
    assert differing(hashes(one), hashes(other)).max() <= MOST_BITS
    assert differing(hashes(one)[:, :1], hashes(other)[:, :1]).max() <= MOST_COARSE_BITS
    assert likeness(one, other).min() >= LIKE


def test_real_xrays_of_different_patients_are_not_taken_for_one(real: list[np.ndarray]) -> None:
    thumbnails = np.stack([thumbnail(pixels) for pixels in real])
    one, other = np.triu_indices(len(real), 1)
    assert differing(hashes(thumbnails)[one], hashes(thumbnails)[other]).min() > MOST_BITS
    assert likeness(thumbnails[one], thumbnails[other]).max() < LIKE
