"""DICOM images to grey, by the pipeline of DICOM PS3.3: modality transform, window, presentation (C.11.1, C.11.2).

pydicom reads the file and decodes its pixels; with a window, values are those of `pydicom.pixels.apply_voi`. Where this
differs from pydicom on purpose: bits above BitsStored (overlays) are cleared in compressed files as in native ones; a
look-up table that declares more bits than it uses is scaled by what it uses; padding is black; and without a window,
values far below BitsStored are scaled by the bits they use.
"""

from __future__ import annotations

import importlib.util
import io
from typing import Any

import numpy as np

from shards.convert.dicom_tables import look_up
from shards.convert.grey import Grey, Unusable, check_shape, luma, white_of
from shards.errors import InputError

_MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_CONTAINER_BITS = 12
"""Files that declare more bits than this may use fewer; a declaration of 12 bits or fewer is trusted."""


def require() -> None:
    """Refuse early where pydicom is not installed.

    Raises:
        InputError: with the command that installs it.
    """
    if importlib.util.find_spec("pydicom") is None:
        raise InputError("DICOM files need the extra 'dicom': pip install 'cxrdist[dicom]'")


def looks_like_dicom(head: bytes) -> bool:
    """Return whether a file begins as DICOM does: with the prefix DICM, or (in old files) with its first element."""
    if head[128:132] == b"DICM" or head[:4] == b"DICM":
        return True
    if head[:2] not in (b"\x02\0", b"\x08\0") or len(head) < 8:  # group 0002 or 0008, little endian
        return False
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    return explicit or int.from_bytes(head[4:8], "little") <= 1024


def read_header(data: bytes, **options: Any) -> Any:
    """Return the pydicom dataset of a file, with or without preamble and file meta information.

    Args:
        data: the file, or as much of it as the options need.
        options: of `pydicom.dcmread`, e.g. stop_before_pixels.
    """
    require()
    import pydicom
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if data[:4] == b"DICM":
        data = bytes(128) + data
    dataset = pydicom.dcmread(io.BytesIO(data), force=True, **options)
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return dataset


def decode_dicom(data: bytes, *, max_pixels: int, bits: int | None, window: str) -> Grey:
    """Decode one DICOM image (a single frame, grey or colour) to grey with black as 0.

    Args:
        data: the whole file.
        max_pixels: larger images are refused before decoding.
        bits: significant bits of the stored values; None: BitsStored, but where that is more than 12: 12 or 14 where no
            pixel needs more. Used only where no window applies.
        window: "file": the file's first window or VOI table, and "full" where it has none; "full": the whole range of
            the stored bits; "minmax": darkest to brightest pixel (padding left out).

    Raises:
        Unusable: with the reason.
    """
    dataset = read_header(data)
    kind = str(dataset.get("PhotometricInterpretation", ""))
    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise Unusable("DICOM without an image")
    if kind not in (*_MONOCHROME, *_COLOUR):
        raise Unusable(f"DICOM of kind {kind or 'unknown'}; grey, RGB, YBR or palette is expected")
    if int(dataset.get("NumberOfFrames", 1) or 1) > 1:
        raise Unusable(f"DICOM with {dataset.NumberOfFrames} frames; one is expected")
    check_shape(int(dataset.Rows), int(dataset.Columns), max_pixels=max_pixels)
    stored = _stored(dataset)
    if kind in _COLOUR:
        return _colour(dataset, stored, kind)
    if stored.ndim != 2:
        raise Unusable(f"DICOM pixels of shape {stored.shape}; one grey image is expected")
    padding = _padding(dataset, stored)
    unit = _to_unit(dataset, stored, stored if padding is None else stored[~padding], bits, window)
    if kind == "MONOCHROME1":
        unit = 1.0 - unit
    if padding is not None:
        unit[padding] = 0.0
    return Grey(np.floor(unit * 65535 + 0.5).astype(np.uint16), 65535)


def _stored(dataset: Any) -> np.ndarray:
    """Return the stored values, bits above BitsStored cleared; colour as RGB (H, W, 3)."""
    from pydicom.pixels.decoders.base import get_decoder

    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated and not get_decoder(syntax).is_available:
        raise Unusable(f"DICOM compressed as {syntax.name}: no decoder is installed; pip install 'cxrdist[dicom]'")
    try:
        values = np.asarray(dataset.pixel_array)
    except RuntimeError as error:  # "all available plugins": what they said comes last
        said = str(error).splitlines()[-1].strip()
        raise Unusable(f"DICOM pixels ({syntax.name}) cannot be decoded: {said}") from error
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise Unusable("DICOM pixels that are not finite numbers")
        return values
    bits, width = int(dataset.BitsStored), 8 * values.dtype.itemsize
    if int(dataset.get("HighBit", bits - 1)) != bits - 1:
        raise Unusable(f"DICOM with HighBit {dataset.HighBit} and BitsStored {bits}: bits that are not the lowest")
    if bits >= width:
        return values
    if values.dtype.kind == "i":
        return (values << (width - bits)) >> (width - bits)
    return values & values.dtype.type(2**bits - 1)


def _colour(dataset: Any, stored: np.ndarray, kind: str) -> Grey:
    """Return colour as grey, as `shards.convert.images` does it for PNG and JPEG."""
    bits = int(dataset.BitsStored)
    if kind == "PALETTE COLOR":
        from pydicom.pixels.processing import apply_color_lut

        stored = np.asarray(apply_color_lut(stored, dataset))
        bits = 8 * stored.dtype.itemsize
    if stored.ndim != 3 or stored.shape[2] < 3 or stored.dtype.kind != "u":
        raise Unusable(f"DICOM colour pixels of shape {stored.shape} and type {stored.dtype}")
    return Grey(luma(stored[:, :, :3]), 2**bits - 1)


def _padding(dataset: Any, stored: np.ndarray) -> np.ndarray | None:
    """Return bool (H, W), True where a pixel is padding; None where none or all are (C.7.5.1.1.2)."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return None
    last = dataset.get("PixelPaddingRangeLimit", value)
    inside = (stored >= min(value, last)) & (stored <= max(value, last))
    return inside if inside.any() and not inside.all() else None


def _to_unit(dataset: Any, stored: np.ndarray, valid: np.ndarray, bits: int | None, window: str) -> np.ndarray:
    """Return float64 (H, W) in [0, 1], before the inversion of MONOCHROME1; `valid` are the pixels but for padding."""
    if window == "file":
        windowed = _window_of_file(dataset, stored)
        if windowed is not None:
            return windowed
    rising = float(dataset.get("RescaleSlope", 1) or 1) > 0
    if window == "minmax":
        low, high = float(valid.min()), float(valid.max())
        low, high = low, max(high, low + 1.0 if stored.dtype.kind != "f" else np.nextafter(low, np.inf))
    elif dataset.get("ModalityLUTSequence"):
        return look_up(dataset.ModalityLUTSequence[0], stored, dataset)
    elif stored.dtype.kind == "f":
        raise Unusable("floating-point DICOM without a window: its black and white are unknown (--dicom_window minmax)")
    else:
        low, high = _stored_range(dataset, valid, bits)
    unit = ((stored - low) / (high - low)).clip(0, 1)
    return unit if rising else 1.0 - unit


def _stored_range(dataset: Any, valid: np.ndarray, bits: int | None) -> tuple[float, float]:
    """Return the stored values of black and white where the file names none."""
    declared = int(dataset.get("BitsStored", 16))
    lowest, highest = int(valid.min()), int(valid.max())
    if int(dataset.get("PixelRepresentation", 0)) == 1 and (lowest < 0 or declared <= _CONTAINER_BITS):
        used = bits or declared
        if bits is None and declared > _CONTAINER_BITS:
            used = next(n for n in (12, 14, declared) if n == declared or -(2**n) <= 2 * lowest <= 2 * highest < 2**n)
        return float(-(2 ** (used - 1))), float(2 ** (used - 1) - 1)
    if bits is None and declared <= _CONTAINER_BITS:
        return 0.0, float(2**declared - 1)
    return 0.0, float(min(white_of(valid, bits), 2**declared - 1) if bits is None else white_of(valid, bits))


def _window_of_file(dataset: Any, stored: np.ndarray) -> np.ndarray | None:
    """Return the VOI transform of the file in [0, 1], or None where it has none (C.11.2.1.2 and C.11.2.1.3)."""
    from pydicom.pixels.processing import apply_modality_lut

    table = dataset.get("VOILUTSequence")
    if not table and (dataset.get("WindowCenter") is None or dataset.get("WindowWidth") is None):
        return None
    if dataset.get("ModalityLUTSequence"):
        first = dataset.ModalityLUTSequence[0]
        values = look_up(first, stored, dataset, scaled=False)
    else:
        values = np.asarray(apply_modality_lut(stored, dataset), dtype=np.float64)
    if table:
        return look_up(table[0], values, dataset)
    centre, width = _first(dataset.WindowCenter), _first(dataset.WindowWidth)
    function = str(dataset.get("VOILUTFunction", "LINEAR") or "LINEAR").upper()
    if width <= 0 or (function == "LINEAR" and width < 1):
        raise Unusable(f"DICOM window width {width} is not allowed")
    if function == "SIGMOID":
        return 1.0 / (1.0 + np.exp(-4.0 * (values - centre) / width))
    if function == "LINEAR_EXACT":
        return ((values - centre) / width + 0.5).clip(0, 1)
    if function != "LINEAR":
        raise Unusable(f"DICOM VOI function {function} is unknown")
    if width == 1:
        return (values > centre - 0.5).astype(np.float64)
    return ((values - (centre - 0.5)) / (width - 1) + 0.5).clip(0, 1)


def _first(value: Any) -> float:
    try:
        return float(value)
    except TypeError:
        return float(value[0])
