"""A decoded grey image, and which images can become a sample at all."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

MIN_SIDE = 16
"""Images with a shorter side below this many pixels are refused: they hold no X-ray."""

MAX_ASPECT = 8
"""Images longer than this many times their width are refused: strips and damaged headers."""


class Unusable(ValueError):
    """This file cannot become a sample; the message is the reason written to rejects.parquet."""


@dataclass(frozen=True)
class Grey:
    """A decoded grey image: `pixels` (H, W) uint8 or uint16, where 0 is black and `white` is full white."""

    pixels: np.ndarray
    white: int


def check_shape(height: int, width: int, *, max_pixels: int) -> None:
    """Refuse sizes that cannot be an X-ray or would fill the memory."""
    if height * width > max_pixels:
        raise Unusable(f"{width} x {height} pixels are more than the limit of {max_pixels} (max_pixels)")
    if min(height, width) < MIN_SIDE:
        raise Unusable(f"{width} x {height} pixels: too small")
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise Unusable(f"{width} x {height} pixels: a strip, not an X-ray")


def white_of(pixels: np.ndarray, bits: int | None) -> int:
    """Return the value of full white: 2^bits - 1; where `bits` is None 12, 14 or 16 bits, by the brightest pixel."""
    peak = int(pixels.max())
    if bits is None:
        return next(white for white in (4095, 16383, 65535) if peak <= white or white == 65535)
    if peak > 2**bits - 1:
        raise Unusable(f"pixel value {peak} does not fit {bits} bits")
    return 2**bits - 1


def luma(rgb: np.ndarray) -> np.ndarray:
    """Return (H, W) of an RGB image (H, W, 3), uint8 or uint16, by the weights of ITU-R BT.601."""
    import cv2

    return cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY)


_ADDRESS = re.compile(r"(?:image )?(?:file )?<[^<>]*? at 0x[0-9a-fA-F]+>")
_LONGEST_REASON = 160


def plain_reason(error: BaseException) -> str:
    """Return what an error says on one line, the same in every process: without addresses of objects."""
    text = " ".join(_ADDRESS.sub("the file", str(error)).split())
    if len(text) > _LONGEST_REASON:
        text = text[:_LONGEST_REASON].rpartition(" ")[0] + " ..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
