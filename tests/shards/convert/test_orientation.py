"""Pictures come out as every viewer shows them, however the camera or scanner was held."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.convert.config import CsvConfig
from shards.convert.images import decode, fit
from tests.shards.convert.conftest import jpeg, make, picture, png, stored

UPRIGHT = picture(7, 48, 80)
LIMIT = 1 << 20
# What the first row and the first column of the file are in the picture (EXIF, tag 274).
SIDES = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def as_stored(pixels: np.ndarray, how: int) -> np.ndarray:
    """The pixels in the order of the file, by the definition above."""
    row, column = SIDES[how]
    if row in ("left", "right"):
        pixels = pixels.T
    if row in ("bottom", "right"):
        pixels = pixels[::-1]
    if column in ("bottom", "right"):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def exif(how: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x010F] = "a camera"
    tags[274] = how
    return tags


def saved(pixels: np.ndarray, kind: str, mode: str, how: int) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(as_stored(pixels, how))
    image = image if mode == "I;16" else image.convert("RGB").convert(mode)
    if kind == "tiff":
        image.save(buffer, "tiff", tiffinfo={274: how})
    else:
        image.save(buffer, kind, exif=exif(how), **({"quality": 98} if kind == "jpeg" else {}))
    return buffer.getvalue()


KINDS = [("jpeg", "L"), ("jpeg", "RGB"), ("jpeg", "CMYK"), ("tiff", "L"), ("tiff", "RGB"), ("tiff", "I;16")]
KINDS += [("png", "L"), ("png", "RGBA"), ("png", "I;16")]


@pytest.mark.parametrize("how", SIDES)
@pytest.mark.parametrize(("kind", "mode"), KINDS)
def test_every_orientation_of_every_kind_comes_out_upright(kind: str, mode: str, how: int) -> None:
    pixels = UPRIGHT.astype(np.uint16) * 257 if mode == "I;16" else UPRIGHT
    grey = decode(saved(pixels, kind, mode, how), max_pixels=LIMIT)
    found = fit(grey, None)
    assert found.shape == UPRIGHT.shape and found.flags.c_contiguous
    assert np.abs(found.astype(int) - UPRIGHT).max() <= (4 if kind == "jpeg" else 0)


def big_endian(how: int) -> bytes:
    """A JPEG whose EXIF block is written in the other byte order."""
    block = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01" + how.to_bytes(2, "big") + b"\0\0\0\0\0\0"
    app1 = b"\xff\xe1" + (len(block) + 8).to_bytes(2, "big") + b"Exif\0\0" + block
    return b"\xff\xd8" + app1 + jpeg(as_stored(UPRIGHT, how))[2:]


@pytest.mark.parametrize("how", SIDES)
def test_either_byte_order_is_read(how: int) -> None:
    found = decode(big_endian(how), max_pixels=LIMIT).pixels
    assert found.shape == UPRIGHT.shape and np.abs(found.astype(int) - UPRIGHT).max() <= 4


NONSENSE = [b"", b"II", b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff", b"no exif at all" * 9]
NONSENSE += [b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0\0\0\0\0"]


@pytest.mark.parametrize("block", NONSENSE)
def test_an_exif_block_without_sense_leaves_the_picture_as_it_is(block: bytes) -> None:
    app1 = b"\xff\xe1" + (len(block) + 8).to_bytes(2, "big") + b"Exif\0\0" + block
    data = jpeg(UPRIGHT)
    assert np.array_equal(
        decode(b"\xff\xd8" + app1 + data[2:], max_pixels=LIMIT).pixels, decode(data, max_pixels=LIMIT).pixels
    )
    data = png(UPRIGHT)
    body = b"eXIf" + block
    chunk = len(block).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    assert np.array_equal(decode(data[:33] + chunk + data[33:], max_pixels=LIMIT).pixels, UPRIGHT)


def test_a_turned_photograph_is_upright_in_the_shard_and_its_size_is_told_upright(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    root.mkdir()
    for how in SIDES:
        (root / f"{how}.jpg").write_bytes(saved(UPRIGHT, "jpeg", "L", how))
    (root / "table.csv").write_text("\n".join(["path,Mass", *(f"{how}.jpg,1" for how in SIDES)]) + "\n")
    config = CsvConfig(
        src=str(root), out=str(tmp_path / "out"), table="table.csv", size=None, image_format="png", workers=1
    )
    index, _, _ = make(config)
    assert len(index) == 8 and set(zip(index.height, index.width, strict=True)) == {(48, 80)}
    for row in index.to_dict("records"):
        assert np.abs(stored(tmp_path / "out", row).astype(int) - UPRIGHT).max() <= 4
