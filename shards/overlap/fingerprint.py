"""What two files of one X-ray have in common, whatever their size and compression: a perceptual hash and a thumbnail.

The hash is the sign of 256 low frequencies of the discrete cosine transform (as pHash: Zauner, "Implementation and
benchmarking of perceptual image hash functions", 2010, with each sign by itself in place of the median as threshold).
Chest X-rays are all alike, so that two hashes can be near by chance: what decides is the correlation of the thumbnails'
fine structure, with the broad shapes that all chests share taken off. benches/reports/against.md holds the measured
distances that the limits are chosen by.

Legend: B images, S = SIDE.
"""

from __future__ import annotations

import functools

import numpy as np

SIDE = 32
"""Pixels of a thumbnail's side; the whole image is squeezed into it, whatever its aspect."""

WORDS = 4
"""uint64 of a hash: 256 bits. The first holds the lowest 8 x 8 frequencies."""

_KEPT = 16
_FINE = 1.5
"""Standard deviation in thumbnail pixels of the Gaussian whose result is taken off."""

MOST_BITS = 40
"""Hashes are near where at most this many of their 256 bits differ."""

MOST_COARSE_BITS = 12
"""And at most this many of the 64 bits of the first word, which are compared first."""

LIKE = 0.9
"""Two images are one X-ray where their hashes are near and the fine structure correlates at least this much."""


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """Return uint8 (S, S) of a grey image, uint8 (H, W): areas averaged, bilinear where the image is smaller."""
    import cv2

    how = cv2.INTER_AREA if min(pixels.shape) >= SIDE else cv2.INTER_LINEAR
    return cv2.resize(pixels, (SIDE, SIDE), interpolation=how)


def hashes(thumbnails: np.ndarray) -> np.ndarray:
    """Return the perceptual hashes, uint64 (B, WORDS), of thumbnails, uint8 (B, S, S)."""
    basis = _cosines()[1 : _KEPT + 1]  # without the mean of rows and columns, which says little
    low = basis @ thumbnails.astype(np.float32) @ basis.T
    bits = (low > 0).reshape(len(thumbnails), _KEPT * _KEPT)[:, _lowest_first()]
    return np.ascontiguousarray(np.packbits(bits, axis=1)).view(np.uint64)


def likeness(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the correlation, float32 (B,) in [-1, 1], of the fine structure of thumbnails, uint8 (B, S, S) each."""
    return np.einsum("bij,bij->b", _fine(one), _fine(other))


def _fine(thumbnails: np.ndarray) -> np.ndarray:
    values, blur = thumbnails.astype(np.float32), _gaussian()
    values -= blur @ values @ blur.T
    values -= values.mean(axis=(1, 2), keepdims=True)
    norm = np.sqrt(np.einsum("bij,bij->b", values, values))
    return values / np.maximum(norm, 1.0)[:, None, None]  # below 1 there is nothing but rounding


@functools.cache
def _cosines() -> np.ndarray:
    """The type II cosine transform of S values as a matrix, float32 (S, S), one frequency a row."""
    frequency, position = np.mgrid[:SIDE, :SIDE]
    return np.cos(np.pi * frequency * (2 * position + 1) / (2 * SIDE)).astype(np.float32)


@functools.cache
def _lowest_first() -> np.ndarray:
    """Order of the frequencies: the 8 x 8 lowest, then the others."""
    row, column = np.divmod(np.arange(_KEPT * _KEPT), _KEPT)
    return np.argsort(np.maximum(row, column) >= 8, kind="stable")


@functools.cache
def _gaussian() -> np.ndarray:
    """A Gaussian blur as a matrix, float32 (S, S); its rows sum to 1 at the edges too."""
    row, column = np.mgrid[:SIDE, :SIDE]
    weights = np.exp(-0.5 * ((row - column) / _FINE) ** 2)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
