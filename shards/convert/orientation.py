"""EXIF orientation: how a stored image must be turned to stand upright, as every viewer shows it."""

from __future__ import annotations

import numpy as np

_TAG = 0x0112
_APP1, _START_OF_SCAN = 0xE1, 0xDA
_EXIF = b"Exif\0\0"


def jpeg_exif(data: bytes) -> bytes | None:
    """Return the EXIF block (a TIFF header and its tables) of a JPEG, None where it has none."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == _START_OF_SCAN:
            break
        if marker == _APP1 and data.startswith(_EXIF, position + 4):
            return data[position + 4 + len(_EXIF) : position + 2 + length]
        position += 2 + length
    return None


def orientation(exif: bytes) -> int:
    """Return the orientation in an EXIF block, 1 to 8; 1 where it says nothing or nothing sensible."""
    order = {b"II*\0": "little", b"MM\0*": "big"}.get(exif[:4])
    if order is None:
        return 1

    def number(position: int, size: int) -> int:
        return int.from_bytes(exif[position : position + size], order)  # type: ignore[arg-type]

    table = number(4, 4)
    for entry in range(table + 2, min(table + 2 + 12 * number(table, 2), len(exif) - 11), 12):
        if number(entry, 2) == _TAG:
            found = number(entry + 8, 2)
            return found if 1 <= found <= 8 else 1
    return 1


def turn(pixels: np.ndarray, how: int) -> np.ndarray:
    """Return stored pixels (H, W) as an upright view, (H, W) for `how` 1 to 4 and (W, H) for 5 to 8.

    `how` is EXIF's tag 274 (CIPA DC-008, 4.6.5): which sides of the image the first row and column are.
    """
    if how >= 5:
        pixels = pixels.T
    rows = slice(None, None, -1 if how in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if how in (2, 3, 6, 7) else 1)
    return pixels[rows, columns]
