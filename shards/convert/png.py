"""PNG files: whether one is intact, and its pixels.

Every chunk's checksum is verified before any pixel is decoded: decoders differ in what damage they pass over, and a
file must be judged the same way whichever of them reads it. 8-bit grey and RGB, which published X-rays are, go to
kornia-rs (Rust; twice as fast as libpng on them), 16-bit colour to OpenCV, which alone keeps 16 bits, all else to
Pillow.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from shards.convert.grey import Unusable, check_shape
from shards.errors import FailedError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
"""Colour types of the header."""
_DEPTHS = {GREY: (1, 2, 4, 8, 16), RGB: (8, 16), PALETTE: (1, 2, 4, 8), GREY_ALPHA: (8, 16), RGBA: (8, 16)}
_BAD_PIXELS = "damaged image (its PNG pixels cannot be decoded)"


@dataclass(frozen=True, kw_only=True)
class Png:
    """The header of a whole file."""

    height: int
    width: int
    depth: int
    """Bits per channel."""
    colour: int
    plain: bool
    """Neither interlaced nor with a transparent colour."""
    exif: bytes | None
    """Content of the eXIf chunk."""


def read(data: bytes, *, max_pixels: int) -> Png:
    """Check every chunk of a PNG and return its header.

    Raises:
        Unusable: too large, cut off, a chunk that fails its checksum, or an invalid header.
    """
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise Unusable("damaged or unsupported image (PNG without a header)")
    width, height, depth, colour, packing, filters, interlace = struct.unpack(">IIBBBBB", data[16:29])
    check_shape(height, width, max_pixels=max_pixels)
    chunks = _checked(data)
    if depth not in _DEPTHS.get(colour, ()) or packing or filters or interlace > 1:
        raise Unusable("damaged or unsupported image (PNG header)")
    if b"IDAT" not in chunks:
        raise Unusable("damaged image (PNG without pixels)")
    exif = chunks.get(b"eXIf")
    return Png(
        height=height, width=width, depth=depth, colour=colour, plain=not interlace and b"tRNS" not in chunks,
        exif=None if exif is None else data[exif.start : exif.stop],
    )  # fmt: skip


def _checked(data: bytes) -> dict[bytes, slice]:
    """Return where the first chunk of every kind is."""
    found: dict[bytes, slice] = {}
    position = len(SIGNATURE)
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        end = position + 12 + length
        if end > len(data):
            break
        kind = data[position + 4 : position + 8]
        if zlib.crc32(data[position + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise Unusable(f"damaged image (PNG chunk {kind!r} fails its checksum)")
        found.setdefault(kind, slice(position + 8, end - 4))
        if kind == b"IEND":
            return found
        position = end
    raise Unusable("damaged image (PNG is cut off)")


def plain_pixels(data: bytes, png: Png) -> np.ndarray:
    """Return uint8 (H, W) or (H, W, 3) of a plain 8-bit grey or RGB file.

    Raises:
        Unusable: the pixels cannot be decoded.
        FailedError: kornia-rs is missing or of another interface.
    """
    decode = fast_decoder()
    try:
        pixels = decode(data, (png.height, png.width), "mono" if png.colour == GREY else "rgb")
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # a panic of Rust code is not an Exception
        raise Unusable(_BAD_PIXELS) from error
    return pixels[:, :, 0] if png.colour == GREY else pixels


def deep_pixels(data: bytes) -> np.ndarray:
    """Return uint16 (H, W) or RGB (H, W, 3) of a file with 16 bits per channel, PNG or TIFF; alpha is dropped.

    Raises:
        Unusable: the pixels cannot be decoded, or came with fewer bits.
    """
    import cv2

    level = cv2.utils.logging.setLogLevel(0)  # its messages about damaged files are not for the user
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    finally:
        cv2.utils.logging.setLogLevel(level)
    if pixels is None or pixels.dtype != np.uint16:
        raise Unusable("damaged or unsupported image (its 16-bit pixels cannot be decoded)")
    if pixels.ndim == 2 or pixels.shape[2] < 3:
        return pixels.reshape(*pixels.shape[:2], -1)[:, :, 0]
    return np.ascontiguousarray(pixels[:, :, 2::-1])


@cache
def fast_decoder() -> Callable[..., np.ndarray]:
    """Return the PNG decoder of kornia-rs, tried on a tiny image.

    Raises:
        FailedError: it is missing, or has another interface; without this test every file would become a reject.
    """
    import cv2

    tiny = np.arange(12, dtype=np.uint8).reshape(2, 6)
    try:
        from kornia_rs.io import decode_image_png_u8

        data = cv2.imencode(".png", tiny)[1].tobytes()
        works = np.array_equal(decode_image_png_u8(data, (2, 6), "mono")[:, :, 0], tiny)
    except Exception as error:
        raise FailedError(
            f"kornia-rs, which decodes PNG files, does not work ({error}): pip install 'kornia-rs>=0.2'"
        ) from error
    if not works:
        raise FailedError("kornia-rs decodes a test image wrongly: pip install 'kornia-rs>=0.2'")
    return decode_image_png_u8
