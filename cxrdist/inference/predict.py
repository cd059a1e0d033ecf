"""Scores for image files, as the fine-tuned model would have given them inside a shard set.

Shapes: S side in pixels, L labels.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from cxrdist.core.ahead import ahead
from cxrdist.errors import InputError
from cxrdist.finetune.config import check_threshold
from cxrdist.inference.network import BATCH, Encoder, learnt_labels
from cxrdist.inference.typicality import Typicality
from results import schema
from results.run import Run
from results.stats import effects
from results.stats.metrics import fixed_threshold
from results.stats.predictions import score_matrices
from results.stats.scoring import val_thresholds
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
    atypicality: float | None = None
    """How far it is from the training images (see `typicality`); None where that is not known."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """What is written of each image."""

    labels: Sequence[str]
    """Labels that the run has learnt."""
    places: Sequence[int]
    """Their places among the model's L labels."""
    thresholds: Mapping[str, float | None]
    """Per label the score from which it is called positive; None = there is none."""
    limit: float | None
    """Atypicality above which an image is flagged; None = not known."""

    def record(self, one: Scored) -> dict[str, Any]:
        """One image as plain values: probabilities, decisions, atypicality and what is wrong."""
        row: dict[str, Any] = {"image": printable(one.path)}
        pairs = zip(self.labels, self.places, strict=True)
        scores = {name: None if one.scores is None else float(one.scores[at]) for name, at in pairs}
        row |= scores
        for name, score in scores.items():
            limit = self.thresholds.get(name)
            row[f"{name}_positive"] = None if score is None or limit is None else bool(score >= limit)
        row["atypicality"] = one.atypicality
        known = one.atypicality is not None and self.limit is not None
        row["atypical"] = bool(one.atypicality > self.limit) if known else None  # pyright: ignore[reportOperatorIssue]
        return row | {"problem": printable(one.problem)}


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


def predict(
    encoder: Encoder, paths: Sequence[str], conversion: Mapping[str, Any] | None, typical: Typicality | None = None
) -> Iterator[Scored]:
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
        batch = torch.from_numpy(np.stack(good))[:, None] if good else None
        scores = iter(()) if batch is None else iter(encoder.scores(batch))
        far = iter(()) if batch is None or typical is None else iter(typical.score(encoder, batch))
        for path, pixels, problem in read:
            if pixels is None:
                yield Scored(path, None, problem)
            else:
                yield Scored(path, next(scores), problem, None if typical is None else float(next(far)))


def write(file: IO[str], scored: Iterator[Scored], columns: Columns, *, lines: bool = False) -> Counts:
    """Write one line an image, as CSV or as JSON lines, and count.

    CSV has `image`, a probability a label, LABEL_positive (1, 0, or empty without a threshold), `atypicality`,
    `atypical` (1, 0), `problem`. JSON lines have the same with null, true and false.

    Args:
        file: open for writing with newline="".
        scored: what to write.
        columns: see `Columns`.
        lines: JSON lines.
    """
    names = [*columns.labels, *(f"{name}_positive" for name in columns.labels), "atypicality", "atypical"]
    writer = csv.DictWriter(file, ["image", *names, "problem"], lineterminator="\n")
    counts = Counts()
    if not lines:
        writer.writeheader()
    for one in scored:
        row = columns.record(one)
        if lines:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        else:
            writer.writerow({name: _cell(value) for name, value in row.items()})
        counts.good += one.scores is not None
        counts.bad += one.scores is None
        counts.atypical += bool(row["atypical"])
    return counts


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    return int(value) if isinstance(value, bool) else f"{value:.6f}" if isinstance(value, float) else value


@dataclass
class Counts:
    """Images written."""

    good: int = 0
    bad: int = 0
    atypical: int = 0


def thresholds(run: Run | None, labels: Sequence[str], rule: str | None) -> dict[str, float | None]:
    """Thresholds of a run by label; all None for a model file without its run.

    Args:
        run: the run.
        labels: the labels.
        rule: how they are chosen on the run's validation images (see `metrics.pick_threshold`); None = those that its
            own results use.

    Raises:
        InputError: an unknown rule, or one that must be chosen and no validation predictions.
    """
    if rule is not None:
        check_threshold(rule)
    fixed = None if rule is None else fixed_threshold(rule)
    if run is None or not run.metrics.is_file():
        if rule is not None and fixed is None:
            raise InputError(f"--threshold {rule}: no results lie beside the model to choose it on; name the run")
        return dict.fromkeys(labels, fixed)
    rows = schema.read_metrics(run.metrics).select(["train_dataset", "test_dataset"]).to_pylist()
    own = str(rows[0]["train_dataset"])
    if rule is None:
        tested = [str(row["test_dataset"]) for row in rows]
        # All its test sets have the thresholds of val, and its own set may have no test split.
        found = effects.thresholds_of(str(run.metrics), own if own in tested else tested[0])
        return {label: found.get(label) for label in labels}
    val = score_matrices(schema.read_predictions(run.predictions), "val").get((own, "val"))
    if val is None and fixed is None:
        raise InputError(f"--threshold {rule}: {run.path} was trained without a val split to choose it on")
    return val_thresholds(tuple(labels), val, rule)


def columns_of(run: str, encoder: Encoder) -> tuple[list[str], list[int]]:
    """Labels that the run has learnt, and their columns in the scores."""
    assert encoder.classifier is not None
    labels = learnt_labels(run, encoder.classifier)
    return labels, [encoder.classifier.facts["labels"].index(name) for name in labels]
