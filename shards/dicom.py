"""DICOM images to grey, by the pipeline of DICOM PS3.3: modality transform, window, presentation (C.11.1, C.11.2)."""

from __future__ import annotations

import importlib.util
import io
from typing import Any

import numpy as np

from shards.errors import InputError
from shards.grey import Grey, Unusable, check_shape, white_of

WINDOWS = ("file", "full", "minmax")


def require() -> None:
    """Refuse early where pydicom is not installed.

    Raises:
        InputError: with the command that installs it.
    """
    if importlib.util.find_spec("pydicom") is None:
        raise InputError("DICOM files need the extra 'dicom': pip install 'cxrdist[dicom]'")


def decode_dicom(data: bytes, *, max_pixels: int, bits: int | None, window: str) -> Grey:
    """Decode one DICOM image (single frame, MONOCHROME1 or MONOCHROME2) to grey with black as 0.

    Args:
        data: the whole file.
        max_pixels: larger images are refused before decoding.
        bits: significant bits of the stored values; None: BitsStored, but 12 where BitsStored is larger and no pixel
            exceeds 4095. Used only where no window applies.
        window: "file": the file's first window or VOI table, and "full" where it has none; "full": the whole range of
            the stored bits; "minmax": darkest to brightest pixel (padding left out).

    Raises:
        Unusable: with the reason.
    """
    require()
    import pydicom

    dataset = pydicom.dcmread(io.BytesIO(data))
    kind = str(dataset.get("PhotometricInterpretation", ""))
    if kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise Unusable(f"DICOM of kind {kind or 'unknown'}; MONOCHROME1 or MONOCHROME2 is expected")
    if int(dataset.get("NumberOfFrames", 1) or 1) > 1:
        raise Unusable(f"DICOM with {dataset.NumberOfFrames} frames; one is expected")
    check_shape(int(dataset.Rows), int(dataset.Columns), max_pixels=max_pixels)
    stored = np.asarray(dataset.pixel_array)
    if stored.ndim != 2:
        raise Unusable(f"DICOM pixels of shape {stored.shape}; one grey image is expected")
    unit = _to_unit(dataset, stored, bits, window)
    if kind == "MONOCHROME1":
        unit = 1.0 - unit
    return Grey(np.floor(unit * 65535 + 0.5).astype(np.uint16), 65535)


def _to_unit(dataset: Any, stored: np.ndarray, bits: int | None, window: str) -> np.ndarray:
    """Return float64 (H, W) in [0, 1], before the inversion of MONOCHROME1."""
    if window == "file":
        windowed = _window_of_file(dataset, stored)
        if windowed is not None:
            return windowed
    if window == "minmax":
        valid = _without_padding(dataset, stored)
        low, high = float(valid.min()), float(valid.max())
        return ((stored - low) / max(high - low, 1.0)).clip(0, 1)
    low, high = _stored_range(dataset, stored, bits)
    unit = ((stored - low) / (high - low)).clip(0, 1)
    return unit if float(dataset.get("RescaleSlope", 1) or 1) > 0 else 1.0 - unit


def _stored_range(dataset: Any, stored: np.ndarray, bits: int | None) -> tuple[float, float]:
    stored_bits = int(dataset.get("BitsStored", 16))
    if int(dataset.get("PixelRepresentation", 0)) == 1:
        return float(-(2 ** (stored_bits - 1))), float(2 ** (stored_bits - 1) - 1)
    if bits is None and stored_bits <= 12:
        return 0.0, float(2**stored_bits - 1)
    if bits is None and stored_bits < 16 and stored.max() > 4095:
        return 0.0, float(2**stored_bits - 1)
    return 0.0, float(white_of(stored, bits))


def _window_of_file(dataset: Any, stored: np.ndarray) -> np.ndarray | None:
    """Return the VOI transform of the file in [0, 1], or None where it has none (C.11.2.1.2 and C.11.2.1.3)."""
    from pydicom.pixels.processing import apply_modality_lut, apply_voi

    values = np.asarray(apply_modality_lut(stored, dataset), dtype=np.float64)
    if dataset.get("VOILUTSequence"):
        table_bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        looked_up = apply_voi(np.rint(values).astype(np.int64), dataset)
        return (np.asarray(looked_up, dtype=np.float64) / (2**table_bits - 1)).clip(0, 1)
    if dataset.get("WindowCenter") is None or dataset.get("WindowWidth") is None:
        return None
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


def _without_padding(dataset: Any, stored: np.ndarray) -> np.ndarray:
    padding = dataset.get("PixelPaddingValue")
    if padding is None:
        return stored
    last = dataset.get("PixelPaddingRangeLimit", padding)
    valid = stored[(stored < min(padding, last)) | (stored > max(padding, last))]
    return valid if valid.size else stored
