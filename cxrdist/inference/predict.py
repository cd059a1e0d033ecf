"""Scores for image files, as the fine-tuned model would have given them inside a shard set.

Shapes: S side in pixels, L labels.
"""

from __future__ import annotations

import contextlib
import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from cxrdist.errors import InputError
from cxrdist.inference.network import BATCH, Encoder, ahead, learnt_labels
from shards.convert import images
from shards.convert.dicom import looks_like_dicom
from shards.convert.sample import printable
from shards.convert.sources import IMAGE_ENDINGS, find_files

MAX_PIXELS = 1 << 26
"""Larger images are refused, as in a conversion."""


@dataclass(frozen=True)
class Scored:
    """One image file."""

    path: str
    """As it was given, or found in a folder that was."""
    scores: np.ndarray | None
    """Probabilities float32 (L,); None where the file cannot be used."""
    problem: str
    """Why not; empty otherwise."""


def find_images(paths: Sequence[str]) -> list[str]:
    """Image files in the order given; a folder stands for all image files below it, sorted.

    Raises:
        InputError: a path does not exist, or a folder holds no image.
    """
    found: list[str] = []
    for path in paths:
        if os.path.isdir(path):
            inside = [name for name in find_files(Path(path), ("",)) if _is_image(os.path.join(path, name))]
            if not inside:
                raise InputError(f"{path}: no image files ({', '.join(IMAGE_ENDINGS)}, or DICOM of any name) in it")
            found += [os.path.join(path, name) for name in inside]
        elif os.path.exists(path):
            found.append(path)
        else:
            raise InputError(f"{path}: no such image file or folder")
    return found


def _is_image(path: str) -> bool:
    """Whether a file is an image by its ending, or DICOM by its content (archives leave the ending out)."""
    if path.lower().endswith(IMAGE_ENDINGS):
        return True
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return looks_like_dicom(file.read(132))
    return False


def read_image(path: str, size: int, conversion: Mapping[str, Any] | None) -> np.ndarray:
    """One file as the model sees it: uint8 (S, S), the centre square, area-averaged.

    Args:
        path: PNG, JPEG, TIFF or DICOM file.
        size: S.
        conversion: settings of the shard set whose conversion the image goes through first (size, quality,
            image_format, bits, dicom_window); None = straight to S.

    Raises:
        shards.convert.images.Unusable: with the reason.
    """
    import cv2

    from shards.read.decode import square

    settings = conversion or {}
    with open(path, "rb") as file:
        data = file.read()
    grey = images.decode(
        data,
        max_pixels=MAX_PIXELS,
        bits=settings.get("bits"),
        dicom_window=settings.get("dicom_window", "file"),
    )
    pixels = images.fit(grey, settings.get("size"))
    if conversion is not None:
        stored = images.encode(pixels, settings.get("image_format", "jpg"), settings.get("quality", 95))
        pixels = cv2.imdecode(np.frombuffer(stored, np.uint8), cv2.IMREAD_GRAYSCALE)
        assert pixels is not None
    pixels = square(pixels)
    if pixels.shape[0] != size:
        how = cv2.INTER_AREA if pixels.shape[0] > size else cv2.INTER_LINEAR
        pixels = cv2.resize(pixels, (size, size), interpolation=how)
    return pixels


def predict(encoder: Encoder, paths: Sequence[str], conversion: Mapping[str, Any] | None) -> Iterator[Scored]:
    """Score image files, in order; one that cannot be used is reported and does not stop the others."""

    def load(part: Sequence[str]) -> list[tuple[str, np.ndarray | None, str]]:
        read = []
        for path in part:
            try:
                read.append((path, read_image(path, encoder.image_size, conversion), ""))
            except (images.Unusable, InputError) as error:
                read.append((path, None, str(error)))
            except OSError as error:
                read.append((path, None, error.strerror or str(error)))
        return read

    parts = [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]
    for read in ahead(load, parts):
        good = [pixels for _, pixels, _ in read if pixels is not None]
        scores = iter(encoder.scores(torch.from_numpy(np.stack(good))[:, None])) if good else iter(())
        for path, pixels, problem in read:
            yield Scored(path, None if pixels is None else next(scores), problem)


def write_csv(
    file: IO[str], scored: Iterator[Scored], labels: Sequence[str], columns: Sequence[int]
) -> tuple[int, int]:
    """Write `image`, one column per label, `problem`; return how many were scored and how many could not be.

    Args:
        file: open for writing with newline="".
        scored: what to write.
        labels: the labels to write.
        columns: their places among the model's L labels.
    """
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["image", *labels, "problem"])
    good = bad = 0
    for one in scored:
        values = [""] * len(labels) if one.scores is None else [f"{one.scores[column]:.6f}" for column in columns]
        writer.writerow([printable(one.path), *values, printable(one.problem)])
        good, bad = (good + 1, bad) if one.scores is not None else (good, bad + 1)
    return good, bad


def columns_of(run: str, encoder: Encoder) -> tuple[list[str], list[int]]:
    """Labels that the run has learnt, and their columns in the scores."""
    assert encoder.classifier is not None
    labels = learnt_labels(run, encoder.classifier)
    return labels, [encoder.classifier.facts["labels"].index(name) for name in labels]
