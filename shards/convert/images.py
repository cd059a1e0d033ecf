"""Any published X-ray file -> one 8-bit grey image of a given size -> JPEG or PNG bytes.

Legend of shapes: H, W source height and width in pixels. Everything here is deterministic: one library and one
version give the same bytes on any number of workers.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from shards.convert import png
from shards.convert.dicom import decode_dicom, looks_like_dicom
from shards.convert.grey import Grey, Unusable, check_shape, luma, plain_reason, white_of
from shards.convert.orientation import jpeg_exif, orientation, turn
from shards.errors import FailedError


def decode(data: bytes, *, max_pixels: int, bits: int | None = None, dicom_window: str = "file") -> Grey:
    """Decode PNG, JPEG, TIFF or DICOM bytes, recognised by content and never by name, to grey.

    Colour is turned grey by the luma weights of ITU-R BT.601; alpha is ignored; inverted kinds (MONOCHROME1,
    white-is-zero TIFF, Adobe CMYK) come out with black as 0. An EXIF orientation is applied: the image is as viewers
    show it.

    Args:
        data: the whole file.
        max_pixels: larger images (by their header) are refused before anything is allocated.
        bits: significant bits of 16-bit files; None: 12, 14 or 16, the fewest that hold every pixel.
        dicom_window: "file", "full" or "minmax", see `shards.convert.dicom.decode_dicom`.

    Raises:
        Unusable: with the reason.
    """
    if not data:
        raise Unusable("empty file (0 bytes)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the decoders' remarks on odd metadata say nothing about the pixels
            grey = _decode(data, max_pixels, bits, dicom_window)
    except (Unusable, MemoryError, FailedError):
        raise
    except Exception as error:  # hostile files make decoders raise nearly anything
        raise Unusable(f"damaged or unsupported image ({plain_reason(error)})") from error
    check_shape(*grey.pixels.shape, max_pixels=max_pixels)
    return grey


def _decode(data: bytes, max_pixels: int, bits: int | None, dicom_window: str) -> Grey:
    if data.startswith(png.SIGNATURE):
        return _decode_png(data, max_pixels, bits)
    if data.startswith(b"\xff\xd8"):
        return _decode_jpeg(data, max_pixels)
    if looks_like_dicom(data[:132]):
        return decode_dicom(data, max_pixels=max_pixels, bits=bits, window=dicom_window)
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _decode_pillow(data, max_pixels, bits)
    raise Unusable(f"not a PNG, JPEG, TIFF or DICOM file (it begins with {data[:8]!r})")


def _decode_png(data: bytes, max_pixels: int, bits: int | None) -> Grey:
    file = png.read(data, max_pixels=max_pixels)
    if file.depth == 8 and file.colour in (png.GREY, png.RGB) and file.plain:
        pixels = png.plain_pixels(data, file)
        grey = Grey(pixels if pixels.ndim == 2 else luma(pixels), 255)
    elif file.depth == 16 and file.colour != png.GREY:
        grey = _deep(data, bits)
    else:
        try:
            grey = _decode_pillow(data, max_pixels, bits)
        except (OSError, SyntaxError) as error:
            raise Unusable("damaged image (its PNG pixels cannot be decoded)") from error
    return grey if file.exif is None else _upright(grey, file.exif)


def _deep(data: bytes, bits: int | None) -> Grey:
    """Return 16-bit colour, or grey with alpha, as 16-bit grey."""
    pixels = png.deep_pixels(data)
    pixels = pixels if pixels.ndim == 2 else luma(pixels)
    return Grey(pixels, white_of(pixels, bits))


def _decode_jpeg(data: bytes, max_pixels: int) -> Grey:
    import simplejpeg

    high, wide, colour, _ = simplejpeg.decode_jpeg_header(data)
    height, width = int(high), int(wide)
    check_shape(height, width, max_pixels=max_pixels)
    if colour in ("CMYK", "YCCK"):
        grey = _cmyk(data, (width, height))
    else:
        grey = Grey(simplejpeg.decode_jpeg(data, "GRAY", strict=True)[:, :, 0], 255)
    exif = jpeg_exif(data)
    return grey if exif is None else _upright(grey, exif)


def _cmyk(data: bytes, size: tuple[int, int]) -> Grey:
    """Decode as strictly as other JPEGs; inks are stored inverted, as Adobe does and Pillow assumes."""
    import simplejpeg
    from PIL import Image

    inks = 255 - simplejpeg.decode_jpeg(data, "CMYK", strict=True)
    return Grey(luma(np.asarray(Image.frombytes("CMYK", size, inks.tobytes()).convert("RGB"))), 255)


# TIFF is not turned here: Pillow does it as it loads one.
def _decode_pillow(data: bytes, max_pixels: int, bits: int | None) -> Grey:
    from PIL import Image

    with _own_bomb_guard(), Image.open(io.BytesIO(data)) as image:
        check_shape(image.height, image.width, max_pixels=max_pixels)
        frames = getattr(image, "n_frames", 1)
        if frames > 1:
            raise Unusable(f"holds {frames} images; one is expected")
        mode = image.mode
        if hasattr(image, "tag_v2") and len(depths := _depths(image)) > 1 and max(depths) > 8:
            return _deep(data, bits)  # upright: OpenCV turns TIFF files as Pillow does
        if mode.startswith("I;16") or mode == "I":
            return _sixteen_bit(image, bits)
        if mode == "F":
            raise Unusable("floating-point pixels: their black and white are unknown")
        if mode in ("1", "L"):
            pixels = np.asarray(image.convert("L"))
        elif mode in ("LA", "La"):
            pixels = np.asarray(image.convert("LA"))[:, :, 0]
        elif mode == "RGBA":  # alpha is dropped, not blended: NIH's RGBA files carry the image in RGB
            pixels = luma(np.asarray(image)[:, :, :3])
        else:
            pixels = luma(np.asarray(image.convert("RGB")))
    return Grey(pixels, 255)


def _upright(grey: Grey, exif: bytes) -> Grey:
    return Grey(turn(grey.pixels, orientation(exif)), grey.white)


def _depths(image: Any) -> tuple[int, ...]:
    """Return the bits of every channel of a TIFF."""
    depths = image.tag_v2.get(258, 1)
    return tuple(depths) if isinstance(depths, tuple) else (int(depths),)


def _sixteen_bit(image: Any, bits: int | None) -> Grey:
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise Unusable(f"pixel values from {values.min()} to {values.max()}: not a 16-bit image")
    pixels = values.astype(np.uint16)
    white = white_of(pixels, bits)
    photometric = image.tag_v2.get(262) if hasattr(image, "tag_v2") else None
    if photometric == 0:  # TIFF WhiteIsZero, which Pillow turns round for 8 bits only
        pixels = np.uint16(white) - pixels
    return Grey(pixels, white)


@contextlib.contextmanager
def _own_bomb_guard() -> Iterator[None]:
    """Switch off Pillow's global pixel limit for one file: `check_shape` holds the user's own."""
    from PIL import Image

    kept, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = kept


def fit(grey: Grey, size: int | None) -> np.ndarray:
    """Return uint8 (h, w) with the shortest side `size` (None: unchanged), aspect kept.

    Shrinking averages over areas; enlarging is bilinear. Values of more than 8 bits are averaged before they are
    rounded to 8.
    """
    import cv2

    pixels, (height, width) = grey.pixels, grey.pixels.shape
    shortest = min(height, width)
    if size is not None and size != shortest:
        target = (max(size, _round(width * size, shortest)), max(size, _round(height * size, shortest)))
        how = cv2.INTER_AREA if size < shortest else cv2.INTER_LINEAR
        pixels = cv2.resize(np.ascontiguousarray(pixels), target, interpolation=how)
    if grey.white != 255:
        pixels = np.floor(pixels.astype(np.float64) * (255 / grey.white) + 0.5).clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(pixels)


def _round(numerator: int, denominator: int) -> int:
    return (2 * numerator + denominator) // (2 * denominator)


def encode(pixels: np.ndarray, image_format: str, quality: int) -> bytes:
    """Return JPEG ("jpg") or lossless PNG ("png") bytes of a uint8 (h, w) image."""
    if image_format == "jpg":
        import simplejpeg

        return simplejpeg.encode_jpeg(pixels[:, :, None], quality=quality, colorspace="GRAY")
    import cv2

    done, buffer = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    if not done:
        raise Unusable("PNG encoder refused the image")
    return buffer.tobytes()


def grey_sums(pixels: np.ndarray) -> tuple[int, int]:
    """Return the sum of a uint8 (h, w) image's values and of their squares, exactly (they stay far below 2^53)."""
    import cv2

    # On some CPUs OpenCV squares a square root, and 28309500 becomes 28309499.999999996.
    return round(cv2.sumElems(pixels)[0]), round(cv2.norm(pixels, cv2.NORM_L2SQR))


FLAT = 5.0
"""Standard deviation, of 255 grey values, below which an image is nearly of one grey: black, or badly scaled."""


def is_flat(total: int, squares: int, count: int) -> bool:
    """Whether an image of `count` pixels is nearly of one grey, by the sum of its values and of their squares."""
    return squares * count - total * total < FLAT**2 * count * count


def flat_warning(count: int, total: int) -> list[str]:
    """Return a warning about images that show nothing; empty where there are none."""
    if not count:
        return []
    return [
        f"WARNING: {count} of {total} stored images are nearly of one grey (standard deviation below {FLAT:g} of 255): "
        "black images, or 16-bit files that need --bits or --dicom_window"
    ]


def single_thread() -> None:
    """Keep OpenCV from starting threads of its own beside the worker processes."""
    import cv2

    cv2.setNumThreads(0)
