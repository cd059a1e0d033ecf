from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pydicom.filewriter
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.filebase import DicomIO as _DicomIO
from pydicom.pixels.processing import apply_modality_lut, apply_windowing
from pydicom.sequence import Sequence
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from shards.convert.grey import Unusable
from shards.convert.images import decode, fit
from tests.shards.convert.conftest import picture

GREY = picture(3, 40, 50)


def dicom(stored: np.ndarray, *, bits: int = 12, kind: str = "MONOCHROME2", **tags) -> bytes:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["cxr"])
    data = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.Rows, data.Columns = stored.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, kind
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, bits, bits - 1
    data.PixelRepresentation = int(stored.dtype.kind == "i")
    for name, value in tags.items():
        setattr(data, name, value)
    if stored.dtype.kind == "f":
        del data.BitsStored, data.HighBit, data.PixelRepresentation
        data.BitsAllocated, data.FloatPixelData = 32, stored.tobytes()
    else:
        data.PixelData = stored.tobytes()
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def DicomIO(buffer: io.BytesIO, implicit: bool) -> _DicomIO:  # noqa: N802
    file = _DicomIO(buffer)
    file.is_implicit_VR, file.is_little_endian = implicit, True
    return file


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
        (dicom(TWELVE, kind="HSV"), "kind HSV"),
        (dicom(TWELVE, kind="RGB"), "colour pixels of shape"),
        (dicom(TWELVE, HighBit=15), "HighBit 15 and BitsStored 12"),
        (dicom(np.full((40, 40), 0.5, np.float32)), "floating-point DICOM without a window"),
        (dicom(np.full((40, 40), np.nan, np.float32), WindowCenter=0, WindowWidth=2), "not finite"),
        (dicom(np.stack([TWELVE, TWELVE]), NumberOfFrames=2), "2 frames"),
        (dicom(TWELVE)[:2000], "damaged"),
        (dicom(TWELVE, Rows=20_000, Columns=20_000), "more than the limit"),
        (dicom(TWELVE, WindowCenter=10, WindowWidth=0), "width"),
    ],
)
def test_unusable_dicom_files_are_refused_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(Unusable, match=reason):
        pixels(data)


CASES = {
    "01-voi-lut-narrow": ("j_voilut.dcm", ["j_voilut16_of12bit.dcm"], 0),
    "03-overlay-bits-j2k": ("c_overlay_native.dcm", ["c_overlay_j2k.dcm"], 0),
    "05-no-window-dark": ("a_plain12.dcm", ["h_14in16.dcm"], 0),
    "07-compressed-and-colour": (
        "../05-no-window-dark/a_plain12.dcm",
        [f"{name}.dcm" for name in ("d_j2k12", "d_jpegls", "d_ljpeg", "d_rle", "e_bigendian", "e_deflated")],
        0,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_one_picture_stored_in_many_ways_is_one_picture(case: str, shared_data: Path) -> None:
    plain, others, allowed = CASES[case]
    folder = shared_data / "cases" / case
    wanted = pixels((folder / plain).read_bytes()).astype(int)
    for name in others:
        assert np.abs(pixels((folder / name).read_bytes()) - wanted).max() <= allowed, name


def test_lossy_and_colour_files_give_nearly_the_plain_picture(shared_data: Path) -> None:
    folder = shared_data / "cases" / "07-compressed-and-colour"
    wanted = pixels((folder.parent / "05-no-window-dark" / "a_plain12.dcm").read_bytes()).astype(int)
    for name in ("d_jpeg12", "d_jpeg8", "m_rgb", "m_ybr422", "m_palette"):
        assert np.abs(pixels((folder / f"{name}.dcm").read_bytes()) - wanted).max() <= 12, name


@pytest.mark.parametrize("used", [12, 14, 16])
@pytest.mark.parametrize("signed", [False, True])
def test_few_bits_in_a_file_of_16_are_not_dark(used: int, signed: bool) -> None:
    values = (GREY.astype(np.int64) * (2**used - 1) + 127) // 255 - signed * 2 ** (used - 1)
    stored = values.astype(np.int16 if signed else np.uint16)
    assert np.array_equal(pixels(dicom(stored, bits=16)), GREY)


def test_signed_values_above_zero_are_no_darker_than_unsigned_ones() -> None:
    assert np.array_equal(pixels(dicom(TWELVE.astype(np.int16), bits=16)), GREY)


def test_padding_is_black_in_both_kinds_and_does_not_choose_the_range() -> None:
    wanted = GREY.copy()
    wanted[:, :5] = 0
    for kind, value, stored in (("MONOCHROME2", 65535, TWELVE), ("MONOCHROME1", 0, 4095 - TWELVE)):
        stored = stored.clip(1, 4095) if value == 0 else stored.copy()
        stored[:, :5] = value
        found = pixels(dicom(stored, bits=16, kind=kind, PixelPaddingValue=value)).astype(int)
        assert np.abs(found - wanted).max() <= 1, kind


def lut(entries: np.ndarray, bits: int, first: int = 0, packed: bool = False) -> Sequence:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries) % 65536, first, bits])
    item.add_new("LUTData", "OW", entries.astype("u1" if packed else "<u2").tobytes())
    return Sequence([item])


SQUARE = ((np.arange(4096) / 4095) ** 2 * 255 + 0.5).astype(np.uint16)


@pytest.mark.parametrize("packed", [False, True])
def test_tables_of_8_bits_are_read_packed_and_in_words(packed: bool) -> None:
    found = pixels(dicom(TWELVE, VOILUTSequence=lut(SQUARE, 8, packed=packed)))
    assert np.abs(found.astype(int) - SQUARE[TWELVE]).max() <= 1
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [4096, 0, 8])
    item.add_new("LUTData", "US", SQUARE.astype("<u2").tolist())
    assert np.array_equal(pixels(dicom(TWELVE, VOILUTSequence=Sequence([item]))), found)


def test_a_table_shorter_than_it_says_is_refused() -> None:
    short = lut(SQUARE[:100], 8)
    short[0].LUTDescriptor = [4096, 0, 8]
    with pytest.raises(Unusable, match="entries, 4096 are declared"):
        pixels(dicom(TWELVE, VOILUTSequence=short))


def test_a_modality_table_counts_with_and_without_a_window() -> None:
    inverse = lut(4095 - np.arange(4096), 12)
    assert np.abs(pixels(dicom(TWELVE, ModalityLUTSequence=inverse)).astype(int) - (255 - GREY)).max() <= 1
    windowed = pixels(dicom(TWELVE, ModalityLUTSequence=inverse, WindowCenter=2048, WindowWidth=4096))
    assert np.abs(windowed.astype(int) - (255 - GREY)).max() <= 1


def test_windows_equal_pydicoms_own_pipeline() -> None:
    options = {"WindowCenter": 1900, "WindowWidth": 900, "RescaleSlope": "2", "RescaleIntercept": "-30"}
    for function in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        data = dicom(TWELVE, VOILUTFunction=function, **options)
        dataset = dcmread(io.BytesIO(data))
        low, high = -30.0, 2.0 * 4095 - 30
        wanted = (apply_windowing(apply_modality_lut(dataset.pixel_array, dataset), dataset) - low) / (high - low) * 255
        assert np.abs(pixels(data) - wanted).max() <= 0.51, function


def test_few_signed_bits_without_a_window_equal_pydicoms_window_over_the_bits_they_use(shared_data: Path) -> None:
    """-534 to 1794 in a signed file of 16 bits: 12 are used, and pydicom would show nine greys of the middle."""
    data = (shared_data / "cases" / "05-no-window-dark" / "k_signed16_nowin.dcm").read_bytes()
    dataset = dcmread(io.BytesIO(data))
    stored = apply_modality_lut(dataset.pixel_array, dataset)
    assert (stored.min(), stored.max(), dataset.BitsStored) == (-534, 1794, 16)
    dataset.WindowCenter, dataset.WindowWidth = 0, 4096
    shown = np.asarray(apply_windowing(stored, dataset), np.float64)  # from -32768 to 32767
    assert np.array_equal(pixels(data), np.floor((shown + 32768) / 65535 * 255 + 0.5))


def test_float_pixels_are_read_through_their_window() -> None:
    found = pixels(
        dicom((GREY / 255).astype(np.float32), WindowCenter=0.5, WindowWidth=1, VOILUTFunction="LINEAR_EXACT")
    )
    assert np.array_equal(found, GREY)


def test_old_files_without_preamble_or_meta_information_are_read() -> None:
    data = dicom(TWELVE)
    assert np.array_equal(pixels(data[128:]), GREY)
    dataset = dcmread(io.BytesIO(data))
    for implicit in (True, False):
        bare = io.BytesIO()
        pydicom.filewriter.write_dataset(DicomIO(bare, implicit), dataset)
        assert np.array_equal(pixels(bare.getvalue()), GREY), implicit


def test_without_its_decoder_a_compressed_file_is_refused_with_the_mend(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pydicom.pixels.decoders import base

    monkeypatch.setattr(base.Decoder, "is_available", property(lambda self: False))
    with pytest.raises(Unusable, match=r"JPEG-LS Lossless.*no decoder is installed; pip install 'cxrdist\[dicom\]'"):
        pixels((shared_data / "cases" / "07-compressed-and-colour" / "d_jpegls.dcm").read_bytes())
