"""Look-up tables of DICOM files: modality LUT and VOI LUT (PS3.3 C.11.1.1 and C.11.2.1.1), however they are stored."""

from __future__ import annotations

from typing import Any

import numpy as np

from shards.convert.grey import Unusable, white_of


def look_up(item: Any, values: np.ndarray, dataset: Any, *, scaled: bool = True) -> np.ndarray:
    """Return values sent through a table.

    The third value of a LUT Descriptor often says how wide the entries are stored, not how many bits they use (Agfa CR
    declares 16 for tables of 12), so white is taken from the entries where more than 12 bits are declared.

    Args:
        item: of ModalityLUTSequence or VOILUTSequence.
        values: (H, W); rounded to the nearest entry.
        dataset: the file.
        scaled: as float64 in [0, 1] (white is 1); else the entries themselves.

    Raises:
        Unusable: the table is shorter than it says.
    """
    entries, first, bits = (int(value) for value in item.LUTDescriptor)
    entries = entries or 1 << 16
    if first > 32767 and int(dataset.get("PixelRepresentation", 0)) == 1:
        first -= 1 << 16
    table = entries_of(item.LUTData, entries, bits, little=dataset.original_encoding[1] is not False)
    at = (np.rint(values).astype(np.int64) - first).clip(0, len(table) - 1)
    found = table[at].astype(np.float64)
    return found / white_of_table(table, bits) if scaled else found


def white_of_table(table: np.ndarray, bits: int) -> int:
    """Return the value of full white: by the declared bits up to 12, else 12, 14 or 16 bits by the largest entry."""
    return white_of(table, None) if bits > 12 or int(table.max()) >= 2**bits else 2**bits - 1


def entries_of(data: Any, entries: int, bits: int, *, little: bool) -> np.ndarray:
    """Return a table's entries, uint16 (entries,), from 8-bit or 16-bit words, packed or not.

    Raises:
        Unusable: there are fewer than `entries`.
    """
    order = "<u2" if little else ">u2"
    if isinstance(data, (bytes, bytearray)):
        wide = len(data) >= 2 * entries
        table = (
            np.frombuffer(bytes(data)[: len(data) // 2 * 2], order) if wide else np.frombuffer(bytes(data), np.uint8)
        )
    else:
        words = np.atleast_1d(np.asarray(data, np.int64)) & 0xFFFF
        packed = len(words) < entries <= 2 * len(words) and bits <= 8  # two 8-bit entries in each 16-bit word
        table = np.frombuffer(words.astype(order).tobytes(), np.uint8) if packed else words
    if len(table) < entries:
        raise Unusable(f"DICOM look-up table of {len(table)} entries, {entries} are declared")
    return table[:entries].astype(np.uint16)
