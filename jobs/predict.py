"""`cxrdist predict`: scores for image files from a fine-tuned run."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, Literal

HELP = "Score image files with a fine-tuned run: one CSV line per image, one column per label. Research use only."
POSITIONALS = ("run", "images")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which model, on which files."""

    run: str
    """A fine-tuning run, or its model.safetensors."""
    images: list[str]
    """PNG, JPEG, TIFF or DICOM files, or folders of them."""
    out: str | None = None
    """CSV file to write; None = stdout."""
    shards: str | None = None
    """Shard set (a folder or a URL) whose conversion (size, JPEG) the images go through first, so that scores are those
    the model gives inside it; None = the conversion of the run's training set, which the model file records."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto, cpu or cuda."""


def run(config: Config) -> int:
    """Score; 1 where some files could not be used (they are in the CSV with the reason)."""
    from pathlib import Path

    from cxrdist.errors import InputError
    from cxrdist.inference import network as networks
    from cxrdist.inference import predict
    from results import atomic

    network = networks.load(config.run, config.device, classify=True)
    paths = predict.find_images(config.images)
    labels, columns = predict.columns_of(config.run, network)
    scored = predict.predict(network, paths, _conversion(config, network))
    counts = (0, 0)
    if config.out is None:
        counts = predict.write_csv(sys.stdout, scored, labels, columns)
    else:
        out = Path(config.out)
        if out.is_dir():
            raise InputError(f"--out {out} is a folder; name a CSV file")

        def fill(temporary: Path) -> None:
            nonlocal counts
            with open(temporary, "w", newline="") as file:
                counts = predict.write_csv(file, scored, labels, columns)

        atomic.write(out, fill)
    good, bad = counts
    print(f"{good} images scored, {bad} could not be used", file=sys.stderr)
    return 1 if bad else 0


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
