from __future__ import annotations

import io

import numpy as np
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from shards.grey import Unusable
from shards.images import decode, fit
from tests.shards.convert.conftest import picture

GREY = picture(3, 40, 50)


def dicom(stored: np.ndarray, *, bits: int = 12, kind: str = "MONOCHROME2", **tags) -> bytes:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["cxr"])
    data = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    data.Rows, data.Columns = stored.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, kind
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, bits, bits - 1
    data.PixelRepresentation = int(stored.dtype.kind == "i")
    for name, value in tags.items():
        setattr(data, name, value)
    data.PixelData = stored.tobytes()
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def pixels(data: bytes, window: str = "file", bits: int | None = None) -> np.ndarray:
    return fit(decode(data, max_pixels=1 << 22, dicom_window=window, bits=bits), None)


TWELVE = ((GREY.astype(np.uint32) * 4095 + 127) // 255).astype(np.uint16)
SIXTEEN = GREY.astype(np.uint16) * 257


def test_12_and_16_bit_images_without_a_window_keep_their_whole_range() -> None:
    assert np.array_equal(pixels(dicom(TWELVE, bits=12)), GREY)
    assert np.array_equal(pixels(dicom(SIXTEEN, bits=16)), GREY)


def test_12_bit_values_in_a_16_bit_file_are_not_black() -> None:
    assert np.array_equal(pixels(dicom(TWELVE, bits=16)), GREY)


def test_monochrome1_comes_out_with_black_as_zero() -> None:
    assert np.array_equal(pixels(dicom(4095 - TWELVE, bits=12, kind="MONOCHROME1")), GREY)


def test_the_window_of_the_file_is_applied_as_the_standard_says() -> None:
    stored = np.tile(np.arange(0, 4096, 64, dtype=np.uint16), (20, 1))
    found = pixels(dicom(stored, WindowCenter=2048, WindowWidth=1024)).astype(int)[0]
    wanted = np.clip((np.arange(0, 4096, 64) - 2047.5) / 1023 + 0.5, 0, 1) * 255
    assert np.abs(found - wanted).max() <= 0.51
    assert found[0] == 0 and found[-1] == 255
    assert np.array_equal(pixels(dicom(stored, WindowCenter=[2048, 9], WindowWidth=[1024, 9])).astype(int)[0], found)


def test_a_window_counts_in_rescaled_values() -> None:
    stored = np.tile(np.arange(0, 4096, 64, dtype=np.uint16), (20, 1))
    plain = pixels(dicom(stored, WindowCenter=2048, WindowWidth=1024))
    moved = pixels(
        dicom(stored, WindowCenter=2048 - 1000, WindowWidth=1024, RescaleSlope="1", RescaleIntercept="-1000")
    )
    assert np.array_equal(plain, moved)


def test_full_and_minmax_ignore_the_window_of_the_file() -> None:
    data = dicom(TWELVE, WindowCenter=100, WindowWidth=10)
    assert np.array_equal(pixels(data, "full"), GREY)
    half = pixels(dicom(TWELVE // 2 + 100), "minmax")
    assert half.min() == 0 and half.max() == 255


def test_signed_pixels_are_shifted_to_black() -> None:
    signed = (TWELVE.astype(np.int32) - 2048).astype(np.int16)
    assert np.array_equal(pixels(dicom(signed, bits=12)), GREY)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (dicom(TWELVE, kind="RGB"), "kind RGB"),
        (dicom(np.stack([TWELVE, TWELVE]), NumberOfFrames=2), "2 frames"),
        (dicom(TWELVE)[:2000], "damaged"),
        (dicom(TWELVE, Rows=20_000, Columns=20_000), "more than the limit"),
        (dicom(TWELVE, WindowCenter=10, WindowWidth=0), "width"),
    ],
)
def test_unusable_dicom_files_are_refused_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(Unusable, match=reason):
        pixels(data)
