"""`cxrdist predict`: scores for image files from a fine-tuned run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from shards.progress import Progress

HELP = (
    "Score image files with a fine-tuned run: one line per image with probabilities, decisions and a warning where the "
    "image is unlike the training images. Research use only."
)
POSITIONALS = ("run", "images")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which model, on which files."""

    run: str
    """A fine-tuning run, or its model.safetensors."""
    images: list[str]
    """PNG, JPEG, TIFF or DICOM files, or folders of them."""
    out: str | None = None
    """File to write; None = stdout."""
    format: Literal["csv", "jsonl"] | None = None
    """csv, or jsonl for one JSON object a line; None = jsonl where `out` ends so, csv otherwise."""
    threshold: str | None = None
    """Rule by which LABEL_positive is decided, chosen on the run's validation images: balanced_accuracy, accuracy, f1,
    sensitivity=0.9, or a threshold such as 0.5; None = the thresholds of the run's own results."""
    typicality: bool = True
    """Flag images unlike the training images (column `atypical`). What is typical is found out once, from the training
    set, and kept in the run; without that set the column stays empty."""
    shards: str | None = None
    """Shard set (a folder or a URL) whose conversion (size, JPEG) the images go through first, so that scores are those
    the model gives inside it; None = the conversion of the run's training set, which the model file records."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto, cpu or cuda."""


def run(config: Config) -> int:
    """Score; 1 where some files could not be used (they are in the CSV with the reason)."""
    from pathlib import Path

    from cxrdist.core.shard_sets import run_of
    from cxrdist.errors import InputError
    from cxrdist.inference import network as networks
    from cxrdist.inference import predict
    from cxrdist.inference.typicality import LIMIT
    from results import atomic
    from shards.progress import Progress

    network = networks.load(config.run, config.device, classify=True)
    run, paths = run_of(config.run), predict.find_images(config.images)
    out = None if config.out is None else Path(config.out)
    if out is not None and (out.is_dir() or any(out.exists() and out.samefile(path) for path in paths)):
        raise InputError(f"--out {out} is {'a folder' if out.is_dir() else 'one of the images'}; name another file")
    labels, places = predict.columns_of(config.run, network)
    limits = predict.thresholds(run, labels, config.threshold)
    conversion = _conversion(config, network)
    typical = _typicality(config, network, run) if config.typicality else None
    limit = None if typical is None else LIMIT
    columns = predict.Columns(labels=labels, places=places, thresholds=limits, limit=limit)
    scored = predict.predict(network, paths, conversion, typical)
    lines = config.format == "jsonl" or (config.format is None and str(config.out).endswith(".jsonl"))
    counts = predict.Counts()
    if out is None:
        counts = predict.write(sys.stdout, scored, columns, lines=lines)
    else:

        def fill(temporary: Path) -> None:
            nonlocal counts
            with Progress(len(paths), "scored", unit="image") as bar, open(temporary, "w", newline="") as file:
                counts = predict.write(file, _counted(scored, bar), columns, lines=lines)

        atomic.write(out, fill)
    flagged = f", {counts.atypical} unlike the training images (atypical)" if counts.atypical else ""
    print(f"{counts.good} images scored, {counts.bad} could not be used{flagged}", file=sys.stderr)
    return 1 if counts.bad else 0


def _counted(scored: Iterator[Any], bar: Progress) -> Iterator[Any]:
    for one in scored:
        yield one
        bar.add(1)


def _typicality(config: Config, network: Any, run: Any) -> Any:
    """What is typical of the run's training images, from the run or found out now; None where that cannot be."""
    from cxrdist.core import backbones, weights
    from cxrdist.inference import typicality
    from cxrdist.inference.network import own_shards
    from cxrdist.inference.options import opened
    from shards import FailedError

    model = backbones.read_metadata(network.source).get(weights.KEY, "")
    if run is None:
        print("no run beside the model: images are not compared with its training images", file=sys.stderr)
        return None
    held = typicality.read(run.typicality, model)
    if held is not None:
        return held
    try:
        place = own_shards(run.path, None)
        train, val = (opened(str(run.path), place, split, "none") for split in ("train", "val"))
        print("finding out what is typical of the training images, once for this run", file=sys.stderr)
        found = typicality.fit(network, train, val)
    except (ValueError, FailedError) as error:  # InputError of any package: the set is gone, or has no val
        print(f"images are not compared with the training images ({error})", file=sys.stderr)
        return None
    try:
        typicality.write(run.typicality, found, model)
    except OSError as error:
        print(f"{run.typicality} could not be kept ({error.strerror})", file=sys.stderr)
    return found


def _conversion(config: Config, network: Any) -> Any:
    """The settings that images are prepared with; None = straight to the model's size."""
    from cxrdist.core import preparation
    from cxrdist.core.shard_sets import absolute, card, recorded, run_of
    from cxrdist.errors import InputError
    from cxrdist.inference.network import own_shards
    from shards import FailedError
    from shards.read.card import check_content

    held = preparation.recorded(network.classifier.facts, network.source)
    if config.shards is None and held is not None:
        print("images are prepared as those of the run's training set", file=sys.stderr)
        return held
    try:  # a model file of an earlier version: the training set's card says it, where it is still there
        place = absolute(own_shards(config.run, config.shards))
    except InputError:
        place = ""
    if place:
        try:
            found = card(place)
        except (ValueError, FailedError):  # it was moved away, or cannot be reached
            if config.shards is not None:
                raise
        else:
            check_content(found, recorded(run_of(config.run), place), place)
            print(f"images are prepared as those of {place}", file=sys.stderr)
            return found.config
    print("the run's training set is not here: images go straight to the model's size", file=sys.stderr)
    return None
