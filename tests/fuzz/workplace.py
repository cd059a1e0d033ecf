"""Good inputs of every kind, to be damaged."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from cxrdist.core import checkpoint
from cxrdist.core.backbones import build_backbone, load_encoder, load_init, save_encoder
from cxrdist.finetune import classifier
from cxrdist.finetune.config import FinetuneConfig
from results.collect import collect, write_collected
from results.run import Run
from results.schema import read_metrics, read_predictions
from tests.conftest import shared_folder
from tests.results import simulate
from tests.shards.conftest import by_hand
from tests.shards.convert.test_dicom import dicom, lut


class Workplace:
    """Good inputs of every kind, made once, and a folder to damage them in."""

    def __init__(self, root: Path):
        self.root = root

    def folder(self, name: str) -> Path:
        """A folder of that name, new at its first use."""
        path = self.root / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    @functools.cached_property
    def images(self) -> list[bytes]:
        """One picture as PNG (8 and 16 bits), JPEG and TIFF."""
        grey = np.random.default_rng(0).integers(0, 256, (48, 40)).astype(np.uint8)
        deep = grey.astype(np.uint16) * 256
        made = [(".png", grey), (".png", deep), (".jpg", grey), (".tiff", grey), (".tiff", deep)]
        return [cv2.imencode(ending, pixels)[1].tobytes() for ending, pixels in made]

    @functools.cached_property
    def dicoms(self) -> list[bytes]:
        """One picture as DICOM: plain, through a window, through a table, signed, in colour, and as JPEG 2000."""
        grey = np.random.default_rng(0).integers(0, 256, (48, 40)).astype(np.uint16) * 16
        made = [
            dicom(grey),
            dicom(grey, WindowCenter=2048, WindowWidth=1024, RescaleSlope="2", RescaleIntercept="-30"),
            dicom(grey, VOILUTSequence=lut(np.arange(4096), 12), kind="MONOCHROME1", PixelPaddingValue=0),
            dicom((grey.astype(np.int32) - 2048).astype(np.int16), bits=16),
        ]
        case = shared_folder() / "cases" / "07-compressed-and-colour"
        return made + [file.read_bytes() for file in sorted(case.glob("*.dcm"))]

    @functools.cached_property
    def shards(self) -> Path:
        """A small shard set."""
        by_hand(self.root / "set")
        return self.root / "set"

    @functools.cached_property
    def run(self) -> Run:
        """A finished fine-tuning run with results."""
        return simulate.finetune(self.root / "runs" / "one", labels={"edema": 0.8, "pneumonia": 0.7})

    @functools.cached_property
    def results(self) -> dict[str, tuple[bytes, Callable[[Path], Any]]]:
        """Bytes of each Parquet file of results, and its reader."""
        whole = self.folder("whole")
        write_collected(whole / "all.parquet", collect(self.run.path)[0])
        return {
            "predictions.parquet": (self.run.predictions.read_bytes(), read_predictions),
            "metrics.parquet": (self.run.metrics.read_bytes(), read_metrics),
            "all.parquet": ((whole / "all.parquet").read_bytes(), lambda path: collect(path)[0]),
        }

    @functools.cached_property
    def weights(self) -> dict[str, tuple[bytes, Callable[[Path], Any]]]:
        """Bytes of each file of weights, and its reader."""
        whole = self.folder("weights")
        backbone = build_backbone("test_resnet", 32, stem="standard")
        facts = {"arch": "test_resnet", "in_chans": 1, "image_size": 32, "stem": "standard", "mean": 0.5, "std": 0.25}
        save_encoder(whole / "encoder.safetensors", backbone, facts)
        config = FinetuneConfig(shards="-", out="-", arch="test_resnet", image_size=32, stem="standard")
        model = classifier.build(config, ("edema", "pneumonia"), (0.5, 0.25))
        classifier.save(whole / "model.safetensors", model, signature="s")
        torch.save(backbone.state_dict(), whole / "weights.pth")
        readers = {
            "encoder.safetensors": lambda path: load_encoder(path)[0].state_dict(),
            "model.safetensors": lambda path: classifier.load(path).state_dict(),
        }
        found = {name: ((whole / name).read_bytes(), read) for name, read in readers.items()}
        pickled = (whole / "weights.pth").read_bytes()
        return found | {"weights.pth": (pickled, lambda path: load_init(str(path), "test_resnet", 32)[0].state_dict())}

    @functools.cached_property
    def expected_weights(self) -> dict[str, dict[str, torch.Tensor]]:
        """What the files of weights hold."""
        return {name: read(self.root / "weights" / name) for name, (_, read) in self.weights.items()}

    @functools.cached_property
    def checkpoint(self) -> tuple[Path, dict[str, Any]]:
        """A checkpoint's folder and its state."""
        root = self.folder("checkpoints")
        state = {"model": {"w": torch.arange(64.0)}, "progress": {"step": 3, "note": "x"}}
        return checkpoint.save(root, 3, state, {"signature": "s"}), state
