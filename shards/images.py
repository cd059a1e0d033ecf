"""Any published X-ray file -> one 8-bit grey image of a given size -> JPEG or PNG bytes.

Legend of shapes: H, W source height and width in pixels. Everything here is deterministic: one library and one
version give the same bytes on any number of workers.
"""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from shards.grey import Grey, Unusable, check_shape, white_of
from shards.orientation import jpeg_exif, orientation, turn

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def decode(data: bytes, *, max_pixels: int, bits: int | None = None, dicom_window: str = "file") -> Grey:
    """Decode PNG, JPEG, TIFF or DICOM bytes, told apart by content and never by name, to grey.

    Colour is turned grey by the luma weights of ITU-R BT.601; alpha is ignored; inverted kinds (MONOCHROME1,
    white-is-zero TIFF, Adobe CMYK) come out with black as 0. An EXIF orientation is applied: the picture is as viewers
    show it.

    Args:
        data: the whole file.
        max_pixels: larger images (by their header) are refused before anything is allocated.
        bits: significant bits of 16-bit files; None: 12 where no pixel exceeds 4095, else 16.
        dicom_window: "file", "full" or "minmax", see `shards.dicom.decode_dicom`.

    Raises:
        Unusable: with the reason.
    """
    if not data:
        raise Unusable("empty file (0 bytes)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the decoders' remarks on odd metadata say nothing about the pixels
            grey = _decode(data, max_pixels, bits, dicom_window)
    except (Unusable, MemoryError):
        raise
    except Exception as error:  # hostile files make decoders raise nearly anything
        text = " ".join(str(error).split())[:160]
        raise Unusable(f"damaged or unsupported image ({type(error).__name__}: {text})") from error
    check_shape(*grey.pixels.shape, max_pixels=max_pixels)
    return grey


def _decode(data: bytes, max_pixels: int, bits: int | None, dicom_window: str) -> Grey:
    if data.startswith(PNG_SIGNATURE):
        return _decode_png(data, max_pixels, bits)
    if data.startswith(b"\xff\xd8"):
        return _decode_jpeg(data, max_pixels)
    if data[128:132] == b"DICM":
        from shards.dicom import decode_dicom

        return decode_dicom(data, max_pixels=max_pixels, bits=bits, window=dicom_window)
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _decode_pillow(data, max_pixels, bits)
    raise Unusable(f"not a PNG, JPEG, TIFF or DICOM file (it begins with {data[:8]!r})")


def _decode_png(data: bytes, max_pixels: int, bits: int | None) -> Grey:
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise Unusable("damaged or unsupported image (PNG without a header)")
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", data[16:29])
    check_shape(height, width, max_pixels=max_pixels)
    fast = _fast_png()
    before = data[33 : data.find(b"IDAT")]
    if fast is not None and depth == 8 and colour in (0, 2) and not interlace and b"tRNS" not in before:
        pixels = _run_fast(fast, data, (height, width), "mono" if colour == 0 else "rgb")
        grey = Grey(pixels[:, :, 0] if colour == 0 else _grey(pixels), 255)
    else:
        _check_png(data)
        try:
            grey = _decode_pillow(data, max_pixels, bits)
        except (OSError, SyntaxError) as error:
            raise Unusable(_BAD_PIXELS) from error
    start = before.find(b"eXIf")
    return grey if start < 0 else _upright(grey, before[start + 4 :])


_BAD_PIXELS = "damaged image (its PNG pixels cannot be decoded)"


def _run_fast(fast: Any, data: bytes, shape: tuple[int, int], mode: str) -> np.ndarray:
    """Decode; refuse what fails for the same reason as the slow way does, so that rejects.parquet is the same."""
    try:
        return fast(data, shape, mode)
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # a panic of Rust code is no Exception
        _check_png(data)
        raise Unusable(_BAD_PIXELS) from error


def _check_png(data: bytes) -> None:
    """Refuse a PNG with a cut-off or changed chunk; Pillow would go on with some of them."""
    position = len(PNG_SIGNATURE)
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        end = position + 12 + length
        if end > len(data):
            break
        kind = data[position + 4 : position + 8]
        if zlib.crc32(data[position + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise Unusable(f"damaged image (PNG chunk {kind!r} fails its check sum)")
        if kind == b"IEND":
            return
        position = end
    raise Unusable("damaged image (PNG is cut off)")


def _fast_png() -> Any:
    """Return the PNG decoder of kornia-rs (Rust; twice as fast as libpng on grey X-rays), None where not installed."""
    global _FAST_PNG
    if _FAST_PNG is _UNKNOWN:
        try:
            from kornia_rs.io import decode_image_png_u8
        except ImportError:
            decode_image_png_u8 = None
        _FAST_PNG = decode_image_png_u8 if _knows_its_work(decode_image_png_u8) else None
    return _FAST_PNG


def _knows_its_work(decode_png: Any) -> bool:
    """Try a decoder on a tiny picture: a version with another interface must not turn every file into a reject."""
    import cv2

    tiny = np.arange(12, dtype=np.uint8).reshape(2, 6)
    try:
        data = cv2.imencode(".png", tiny)[1].tobytes()
        return np.array_equal(decode_png(data, (2, 6), "mono")[:, :, 0], tiny)
    except Exception:
        return False


_UNKNOWN = object()
_FAST_PNG: Any = _UNKNOWN


def _decode_jpeg(data: bytes, max_pixels: int) -> Grey:
    import simplejpeg

    high, wide, colour, _ = simplejpeg.decode_jpeg_header(data)
    height, width = int(high), int(wide)
    check_shape(height, width, max_pixels=max_pixels)
    if colour in ("CMYK", "YCCK"):
        grey = _decode_pillow(data, max_pixels, None)
    else:
        grey = Grey(simplejpeg.decode_jpeg(data, "GRAY", strict=True)[:, :, 0], 255)
    exif = jpeg_exif(data)
    return grey if exif is None else _upright(grey, exif)


# TIFF is not turned here: Pillow does it as it loads one.
def _decode_pillow(data: bytes, max_pixels: int, bits: int | None) -> Grey:
    from PIL import Image

    with _own_bomb_guard(), Image.open(io.BytesIO(data)) as image:
        check_shape(image.height, image.width, max_pixels=max_pixels)
        frames = getattr(image, "n_frames", 1)
        if frames > 1:
            raise Unusable(f"holds {frames} pictures; one is expected")
        mode = image.mode
        if mode.startswith("I;16") or mode == "I":
            return _sixteen_bit(image, bits)
        if mode == "F":
            raise Unusable("floating-point pixels: their black and white are unknown")
        if mode in ("1", "L"):
            pixels = np.asarray(image.convert("L"))
        elif mode in ("LA", "La"):
            pixels = np.asarray(image.convert("LA"))[:, :, 0]
        elif mode == "RGBA":  # alpha is dropped, not blended: NIH's RGBA files carry the picture in RGB
            pixels = _grey(np.asarray(image)[:, :, :3])
        else:
            pixels = _grey(np.asarray(image.convert("RGB")))
    return Grey(pixels, 255)


def _upright(grey: Grey, exif: bytes) -> Grey:
    return Grey(turn(grey.pixels, orientation(exif)), grey.white)


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


def _grey(pixels: np.ndarray) -> np.ndarray:
    import cv2

    return cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)


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

    return int(cv2.sumElems(pixels)[0]), int(cv2.norm(pixels, cv2.NORM_L2SQR))


def single_thread() -> None:
    """Keep OpenCV from starting threads of its own beside the worker processes."""
    import cv2

    cv2.setNumThreads(0)
