from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import shards.images
from shards.grey import Unusable
from shards.images import decode, encode, fit
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


def test_without_the_fast_decoder_the_pixels_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    data = [LOSSLESS["grey png"], LOSSLESS["rgb png"]]
    fast = [pixels(each) for each in data]
    monkeypatch.setattr(shards.images, "_FAST_PNG", None)
    for each, before in zip(data, fast, strict=True):
        assert np.array_equal(pixels(each), before)


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
    "two pictures": (saved(RGB, "tiff", save_all=True, append_images=[RGB]), "2 pictures"),
}


@pytest.fixture(params=["fast decoder", "pillow"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run with and without the fast PNG decoder."""
    if request.param == "pillow":
        monkeypatch.setattr(shards.images, "_FAST_PNG", None)


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.usefixtures("decoder")
def test_unusable_files_are_refused_with_a_reason(kind: str) -> None:
    data, reason = BROKEN[kind]
    with pytest.raises(Unusable, match=reason):
        pixels(data)


def test_a_fast_decoder_of_another_interface_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    io_module = pytest.importorskip("kornia_rs.io", reason="kornia-rs: not installed")
    monkeypatch.setattr(shards.images, "_FAST_PNG", shards.images._UNKNOWN)
    monkeypatch.setattr(io_module, "decode_image_png_u8", lambda data: None)
    assert np.array_equal(pixels(png(GREY)), GREY)
    assert shards.images._FAST_PNG is None
    monkeypatch.undo()
    monkeypatch.setattr(shards.images, "_FAST_PNG", shards.images._UNKNOWN)
    assert shards.images._fast_png() is not None


def test_a_panic_of_the_fast_decoder_is_one_reject_and_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):
        pass

    def panic(*_: object) -> None:
        raise PanicException("index out of bounds")

    monkeypatch.setattr(shards.images, "_FAST_PNG", panic)
    with pytest.raises(Unusable, match="cannot be decoded"):
        pixels(png(GREY))


def test_reasons_are_the_same_with_and_without_the_fast_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    def reason(data: bytes) -> str:
        with pytest.raises(Unusable) as caught:
            pixels(data)
        return str(caught.value)

    body = zlib.compress(bytes(100))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 0, 0, 0, 0))
    too_short = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    files = [BROKEN[kind][0] for kind in BROKEN if "png" in kind] + [too_short]
    fast = [reason(data) for data in files]
    monkeypatch.setattr(shards.images, "_FAST_PNG", None)
    assert [reason(data) for data in files] == fast


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


@pytest.mark.usefixtures("decoder")
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
