from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

import shards.convert.png
from shards.convert.grey import Unusable
from shards.convert.images import decode, encode, fit, grey_sums
from shards.convert.orientation import turn
from shards.errors import FailedError
from tests.shards.convert.conftest import grey_file, jpeg, picture, png

LIMIT = 1 << 22
GREY = picture(1, 48, 64)


def pixels(data: bytes, size: int | None = None, **options) -> np.ndarray:
    return fit(decode(data, max_pixels=LIMIT, **options), size)


def saved(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


RGB = Image.fromarray(np.dstack([GREY] * 3))
ALPHA = Image.fromarray(np.dstack([GREY] * 3 + [np.full_like(GREY, 77)]))
LOSSLESS = {
    "grey png": png(GREY),
    "rgb png": saved(RGB, "png"),
    "rgba png": saved(ALPHA, "png"),
    "grey and alpha png": saved(ALPHA.convert("LA"), "png"),
    "palette png": saved(Image.fromarray(GREY).convert("P"), "png"),
    "grey tiff": saved(Image.fromarray(GREY), "tiff"),
    "rgb tiff": saved(RGB, "tiff"),
    "white-is-zero tiff": saved(Image.fromarray(GREY), "tiff", tiffinfo={262: 0}),  # Pillow stores it inverted
    "png with a transparent grey": saved(Image.fromarray(GREY), "png", transparency=0),
    "rgb png with a transparent colour": saved(RGB, "png", transparency=(0, 0, 0)),
    "16-bit png": png(GREY.astype(np.uint16) * 257),
    "16-bit tiff": saved(Image.fromarray(GREY.astype(np.uint16) * 257), "tiff"),
    "12-bit in 16-bit png": png(((GREY.astype(np.uint32) * 4095 + 127) // 255).astype(np.uint16)),
}


@pytest.mark.parametrize("kind", LOSSLESS)
def test_every_lossless_kind_gives_the_same_grey_picture(kind: str) -> None:
    assert np.array_equal(pixels(LOSSLESS[kind]), GREY)


@pytest.mark.parametrize("kind", ["L", "RGB", "CMYK"])
def test_jpeg_of_every_colour_space_gives_the_grey_picture(kind: str) -> None:
    data = saved(Image.fromarray(GREY).convert("RGB").convert(kind), "jpeg", quality=98)
    assert np.abs(pixels(data).astype(int) - GREY).max() <= 4


def test_true_colour_is_weighted_by_luma() -> None:
    red = Image.new("RGB", (20, 20), (255, 0, 0))
    assert pixels(saved(red, "png"))[0, 0] == 76


def test_16_bit_white_is_zero_tiff_is_turned_round() -> None:
    inverted = Image.fromarray((255 - GREY).astype(np.uint16) * 257)
    assert np.array_equal(pixels(saved(inverted, "tiff", tiffinfo={262: 0})), GREY)


def test_significant_bits_scale_to_full_white() -> None:
    ten_bits = np.full((20, 20), 1023, np.uint16)
    assert pixels(png(ten_bits), bits=10).min() == 255
    assert pixels(png(ten_bits)).max() == 64  # taken for 12 bits
    with pytest.raises(Unusable, match="does not fit"):
        pixels(png(ten_bits), bits=8)


def test_shrinking_averages_areas_and_keeps_the_aspect() -> None:
    blocks = np.arange(12 * 16).reshape(12, 16).astype(np.uint8)
    large = np.kron(blocks, np.ones((4, 4), np.uint8))
    assert np.array_equal(pixels(png(large), 12), blocks)
    assert pixels(png(picture(2, 100, 150)), 32).shape == (32, 48)
    assert pixels(png(picture(2, 150, 100)), 32).shape == (48, 32)


@pytest.mark.parametrize("shape", [(28, 28), (32, 40), (224, 224), (1000, 900)])
def test_sums_of_pixels_and_squares_are_exact(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    whole = pixels.astype(np.int64)
    assert grey_sums(pixels) == (whole.sum(), (whole**2).sum())


def test_small_sources_are_enlarged_to_the_size_asked_for() -> None:
    assert pixels(png(GREY), 96).shape == (96, 128)


@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_encoded_images_decode_to_what_was_stored(kind: str) -> None:
    found = pixels(encode(GREY, kind, 95))
    assert np.abs(found.astype(int) - GREY).max() <= (0 if kind == "png" else 6)


BROKEN = {
    "nothing": (b"", "empty file"),
    "half a png": (png(GREY)[:900], "damaged"),
    "png without end": (png(GREY)[:-13], "damaged"),
    "half a jpeg": (jpeg(GREY)[:700], "damaged"),
    "half a tiff": (LOSSLESS["grey tiff"][:800], "damaged"),
    "only a png signature": (png(GREY)[:8], "damaged"),
    "only a png header": (png(GREY)[:33], "damaged"),
    "a web page": (b"<!DOCTYPE html><html>not found</html>", "not a PNG"),
    "text": (b"hello", "not a PNG"),
    "one pixel": (png(np.zeros((1, 1), np.uint8)), "too small"),
    "a strip": (png(np.zeros((16, 900), np.uint8)), "strip"),
    "floating point tiff": (saved(Image.fromarray(GREY.astype(np.float32)), "tiff"), "floating-point"),
    "two images": (saved(RGB, "tiff", save_all=True, append_images=[RGB]), "2 images"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_unusable_files_are_refused_with_a_reason(kind: str) -> None:
    data, reason = BROKEN[kind]
    with pytest.raises(Unusable, match=reason):
        pixels(data)


@pytest.mark.parametrize("broken", [None, lambda data: None, lambda data, shape, mode: np.zeros((2, 6, 1), np.uint8)])
def test_a_missing_or_odd_png_decoder_stops_the_work_and_rejects_no_file(
    broken: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import kornia_rs.io

    monkeypatch.setattr(kornia_rs.io, "decode_image_png_u8", broken)
    shards.convert.png.fast_decoder.cache_clear()
    with pytest.raises(FailedError, match="pip install 'kornia-rs"):
        pixels(png(GREY))
    monkeypatch.undo()
    shards.convert.png.fast_decoder.cache_clear()
    assert np.array_equal(pixels(png(GREY)), GREY)


def test_a_panic_of_the_png_decoder_is_one_reject_and_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):
        pass

    def panic(*_: object) -> None:
        raise PanicException("index out of bounds")

    monkeypatch.setattr(shards.convert.png, "fast_decoder", lambda: panic)
    with pytest.raises(Unusable, match="cannot be decoded"):
        pixels(png(GREY))


DAMAGED = {
    "grey": png(GREY), "rgb": png(np.dstack([GREY] * 3)), "rgba": saved(RGB.convert("RGBA"), "png"),
    "palette": saved(RGB.convert("P"), "png"), "16-bit grey": png(GREY.astype(np.uint16) * 257),
    "16-bit rgb": png(np.dstack([GREY.astype(np.uint16) * 257] * 3)),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_png_is_refused_or_has_its_own_pixels_whichever_decoder_reads_it(kind: str) -> None:
    data, rng = DAMAGED[kind], np.random.default_rng(len(kind))
    whole, refused = pixels(data), 0
    for number in range(150):
        damaged, place = bytearray(data), int(rng.integers(len(data)))
        if number % 3 == 0:
            damaged[place] ^= 1 << int(rng.integers(8))
        elif number % 3 == 1:
            del damaged[place:]
        else:
            damaged[place : place + 8] = rng.bytes(int(rng.integers(9)))
        try:
            assert np.array_equal(pixels(bytes(damaged)), whole)
        except Unusable as error:
            refused += 1
            assert "0x" not in str(error) and "\n" not in str(error)
    assert refused > 140


def deep(values: np.ndarray, kind: str) -> bytes:
    colour = np.dstack([values] * 3)
    if kind == "rgb tiff":
        return cv2.imencode(".tiff", colour)[1].tobytes()
    if kind == "rgb png":
        return png(colour)
    if kind == "rgba png":
        return png(np.dstack([colour, np.full_like(values, 65535)]))
    body = b"".join(b"\0" + np.dstack([row, np.full_like(row, 9)]).astype(">u2").tobytes() for row in values[:, None])
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, 4, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["rgb png", "rgba png", "grey and alpha png", "rgb tiff"])
@pytest.mark.parametrize("used", [12, 14, 16])
def test_16_bit_colour_keeps_the_bits_it_uses(kind: str, used: int) -> None:
    values = ((GREY.astype(np.uint32) * (2**used - 1) + 127) // 255).astype(np.uint16)
    assert np.abs(pixels(deep(values, kind)).astype(int) - GREY).max() <= 1
    assert np.abs(pixels(deep(values, kind), bits=used).astype(int) - GREY).max() <= 1


def test_16_bit_colour_of_the_field_equals_the_grey_file_of_the_same_values(shared_data: Path) -> None:
    folder = shared_data / "cases" / "08-rgb16-12bit"
    grey = pixels((folder / "a_g16_12bit.png").read_bytes()).astype(int)
    assert (grey.min(), grey.max()) == (29, 174)
    for name in ("b_la16_12bit.png", "b_rgb16_12bit.png", "k_rgb16_12.tif", "b_rgb16_16bit.png"):
        assert np.abs(pixels((folder / name).read_bytes()) - grey).max() <= 1, name


@pytest.mark.parametrize("how", range(1, 9))
def test_a_turned_16_bit_colour_tiff_comes_out_upright(how: int) -> None:
    upright = GREY.astype("<u2") * 257
    stored = next(
        kept
        for mirrored in (upright, upright[:, ::-1])
        for quarter in range(4)
        if np.array_equal(turn(kept := np.ascontiguousarray(np.rot90(mirrored, quarter)), how), upright)
    )
    (height, width), body = stored.shape, np.dstack([stored] * 3).tobytes()
    tags = {256: width, 257: height, 258: 0, 259: 1, 262: 2, 273: 8, 274: how, 277: 3, 278: height, 279: len(body)}
    depths = 8 + len(body)
    table = b"".join(
        struct.pack("<HHII", tag, 3, 3, depths) if tag == 258 else struct.pack("<HHII", tag, 4, 1, value)
        for tag, value in tags.items()
    )
    data = b"II*\0" + struct.pack("<I", depths + 6) + body + struct.pack("<3H", 16, 16, 16)
    data += struct.pack("<H", len(tags)) + table + bytes(4)
    assert np.array_equal(pixels(data), GREY)


def test_a_damaged_cmyk_jpeg_is_refused() -> None:
    data = saved(Image.fromarray(GREY).convert("RGB").convert("CMYK"), "jpeg", quality=98)
    rng = np.random.default_rng(0)
    start = data.index(b"\xff\xda") + 14
    for _ in range(30):
        damaged = bytearray(data)
        del damaged[int(rng.integers(start, len(data) - 40)) :]
        with pytest.raises(Unusable):
            pixels(bytes(damaged))


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@pytest.mark.parametrize("colour", [0, 2, 3, 6])
def test_decompression_bomb_is_refused_by_its_header(colour: int) -> None:
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, colour, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )
    with pytest.raises(Unusable, match="20000 x 20000 pixels are more than the limit"):
        pixels(bomb)


def test_a_20000_pixel_jpeg_is_refused_by_its_header() -> None:
    data = bytearray(jpeg(GREY))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 20_000, 20_000)
    with pytest.raises(Unusable, match="more than the limit"):
        pixels(bytes(data))


def test_any_flipped_byte_of_a_png_is_refused_or_harmless() -> None:
    data, rng = png(GREY), np.random.default_rng(0)
    for position in rng.integers(8, len(data), 200):
        changed = bytearray(data)
        changed[position] ^= 1 << int(rng.integers(8))
        try:
            assert np.array_equal(pixels(bytes(changed)), GREY)
        except Unusable:
            pass


def test_real_nih_pngs_decode_as_opencv_decodes_them(shared_data: Path) -> None:
    for path in sorted((shared_data / "nih").rglob("*.png"))[:6]:
        reference = grey_file(path)
        assert np.array_equal(pixels(path.read_bytes()), reference)


def test_real_rgba_pngs_lose_only_their_alpha(shared_data: Path) -> None:
    seen = 0
    for path in sorted((shared_data / "nih64" / "images").glob("*.png")):
        with Image.open(path) as image:
            if image.mode != "RGBA":
                continue
            reference = np.asarray(image.convert("RGB").convert("L"))
        assert np.abs(pixels(path.read_bytes()).astype(int) - reference).max() <= 1
        seen += 1
    assert seen == 21
