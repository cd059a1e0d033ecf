"""A fine-tuned model for use from Python: `cxrdist.load_classifier("runs/ft").predict(["a.png"])`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cxrdist.core import preparation
from cxrdist.core.shard_sets import run_of
from cxrdist.finetune.classifier import Classifier
from cxrdist.inference import network as networks
from cxrdist.inference import predict as predicting
from cxrdist.inference.network import Encoder


@dataclass(frozen=True, kw_only=True)
class LoadedClassifier:
    """A fine-tuned model with all it needs to score image files."""

    encoder: Encoder
    """The network, its image size and pixel scale."""
    columns: predicting.Columns
    """Labels and thresholds."""
    conversion: dict[str, Any] | None
    """How files are prepared: as the images of the training set; None = straight to the model's size."""

    @property
    def labels(self) -> list[str]:
        """Labels it has learnt."""
        return list(self.columns.labels)

    @property
    def module(self) -> Classifier:
        """Normalised images (B, 1, S, S) -> logits (B, all labels of the training), as a torch module."""
        assert self.encoder.classifier is not None
        return self.encoder.classifier

    def predict(self, paths: Sequence[str]) -> list[dict[str, Any]]:
        """Score image files (PNG, JPEG, TIFF, DICOM, or folders of them).

        Returns:
            One dict per file: image, a probability per label, LABEL_positive, and problem, as `cxrdist predict` writes
            them.

        Raises:
            InputError: a path does not exist.
        """
        files = predicting.find_images(paths)
        scored = predicting.predict(self.encoder, files, self.conversion)
        return [self.columns.record(one) for one in scored]


def load_classifier(path: str | os.PathLike[str], device: str = "auto") -> LoadedClassifier:
    """A fine-tuned model.

    Args:
        path: the run, or its model.safetensors.
        device: auto, cpu or cuda.

    Raises:
        InputError: no fine-tuned model there.
    """
    encoder = networks.load(path, device, classify=True)
    assert encoder.classifier is not None
    labels, places = predicting.columns_of(os.fspath(path), encoder)
    limits = predicting.thresholds(run_of(path), labels, None)
    return LoadedClassifier(
        encoder=encoder,
        columns=predicting.Columns(labels=labels, places=places, thresholds=limits, limit=None),
        conversion=preparation.recorded(encoder.classifier.facts, encoder.source),
    )
