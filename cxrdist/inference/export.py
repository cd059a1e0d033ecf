"""Trained networks for use without cxrdist: ONNX, plain state dicts, a folder that timm loads.

Shapes: B images, S side in pixels, L labels.
"""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from collections.abc import Callable, Sequence
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from torch import nn

from cxrdist.errors import FailedError, InputError
from cxrdist.inference.network import Encoder
from results import atomic

TOLERANCE = 1e-5
"""Largest difference of a probability (of a feature, relative to the largest) that an export may show."""


PREPROCESSING = "one channel of grey, 8 bits"
"""How `preprocessing` begins, by which the facts of an export are known."""


class _FromGrey(nn.Module):
    """Grey values 0 to 255 (B, 1, S, S) -> probabilities (B, L), or features (B, D) of an encoder."""

    def __init__(self, encoder: Encoder, places: Sequence[int]):
        super().__init__()
        self.network = encoder.module if encoder.classifier is None else encoder.classifier
        self.mean, self.std, self.scored = encoder.mean, encoder.std, encoder.classifier is not None
        self.places = list(places)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        out = self.network((image / 255 - self.mean) / self.std)
        return torch.sigmoid(out[:, self.places]) if self.scored else out


def preprocessing(encoder: Encoder) -> str:
    """What must be done to an image before it goes into the exported network, in words."""
    size = encoder.image_size
    own = " (or less the mean and divided by the deviation of each shard set's own, as in training)"
    return (
        f"{PREPROCESSING} (MONOCHROME1 inverted), the centre square, area-averaged to "
        f"{size} x {size} pixels; then (value / 255 - {encoder.mean:.6g}) / {encoder.std:.6g}"
        f"{own if encoder.per_set else ''}"
    )


def to_onnx(encoder: Encoder, labels: Sequence[str], places: Sequence[int], out: Path) -> float:
    """Write an ONNX file whose input is grey values 0 to 255, float32 (B, 1, S, S), once onnxruntime computes the same.

    Returns:
        The largest difference to torch.

    Raises:
        InputError: the extra `onnx` is not installed.
        FailedError: the file would compute something else than the network; nothing is written.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if util.find_spec(name) is None]
    if missing:
        raise InputError(f"--to onnx needs {', '.join(missing)}: pip install 'cxrdist[onnx]'; or take pth or hf")
    model = _FromGrey(encoder, places).cpu().eval()
    draw = np.random.default_rng(0)
    shape = (3, 1, encoder.image_size, encoder.image_size)
    images = torch.from_numpy(draw.integers(0, 256, shape).astype(np.float32))
    name = "probability" if labels else "features"
    facts = {"labels": json.dumps(list(labels)), "preprocessing": preprocessing(encoder), "research_use_only": "true"}
    with torch.inference_mode():
        wanted = model(images).numpy()
    gap = 0.0

    def fill(temporary: Path) -> None:
        nonlocal gap
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # of the exporter's own insides
            program: Any = torch.onnx.export(
                model, (images,), input_names=["image"], output_names=[name], dynamo=True,
                dynamic_shapes={"image": {0: torch.export.Dim("batch")}},
            )  # fmt: skip
        for key, value in facts.items():
            program.model.metadata_props[key] = value
        program.save(str(temporary), external_data=False)
        gap = _close(_by_onnxruntime(temporary, images.numpy()), wanted, out)

    atomic.write(out, fill)
    return gap


def _by_onnxruntime(file: Path, images: np.ndarray) -> np.ndarray:
    import onnxruntime  # pyright: ignore[reportMissingImports]

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"image": images})[0])


def _close(found: np.ndarray, wanted: np.ndarray, where: Path) -> float:
    gap = float(np.abs(found - wanted).max()) / max(1.0, float(np.abs(wanted).max()))
    if not gap <= TOLERANCE:
        raise FailedError(f"{where} would give other numbers than the network (largest difference {gap:.1e})")
    return gap


def to_pth(encoder: Encoder, labels: Sequence[str], folder: Path) -> list[Path]:
    """Write plain state dicts, without any Python objects: of the encoder in timm's names, and of the classifier.

    Returns:
        The files: best_ssl_model.pth; or best_LABEL_classifier.pth (best_classifier.pth of several labels), whose keys
        begin with backbone. and head.; each with a .json of its facts beside it.
    """
    facts: dict[str, Any] = {"arch": encoder.name, "image_size": encoder.image_size, "in_chans": 1}
    facts |= {"mean": encoder.mean, "std": encoder.std, "preprocessing": preprocessing(encoder)}
    if encoder.classifier is None:
        name, state = "best_ssl_model", encoder.module.state_dict()
    else:
        only = f"{labels[0]}_" if len(encoder.classifier.facts["labels"]) == 1 else ""
        name, state = f"best_{only}classifier", encoder.classifier.state_dict()
        facts |= {key: encoder.classifier.facts[key] for key in ("labels", "head", "stem")}
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    file = folder / f"{name}.pth"
    atomic.write_text(file.with_suffix(".json"), json.dumps(facts, indent=2) + "\n")  # first: it tells whose file it is
    _save(file, lambda temporary: torch.save(tensors, temporary))
    return [file, file.with_suffix(".json")]


def _save(file: Path, fill: Callable[[Path], None]) -> None:
    """Write weights in one piece, readable by whom the user's umask lets read.

    Raises:
        FailedError: no room: torch and safetensors have errors of their own for it.
        InputError: the folder cannot be written to.
    """

    def fill_and_share(temporary: Path) -> None:
        temporary.touch()
        mode = temporary.stat().st_mode
        fill(temporary)
        temporary.chmod(mode)  # safetensors makes files for their owner alone

    try:
        atomic.write(file, fill_and_share)
    except (RuntimeError, safetensors.SafetensorError) as error:
        cause = str(error).strip().splitlines()[0]
        raise FailedError(f"{file} could not be written: {cause}; is there space left on its disk?") from None


def to_hf(encoder: Encoder, labels: Sequence[str], places: Sequence[int], folder: Path, card: str) -> float:
    """Write a folder in the style of the Hugging Face hub, and load it again by timm alone to check it.

    It holds model.safetensors, config.json and README.md; `timm.create_model("local-dir:FOLDER", pretrained=True)`.

    Returns:
        The largest difference to the network.

    Raises:
        InputError: timm has no such network (a small stem, small_cnn), or the head is none of timm's.
        FailedError: what timm loads computes something else; no weights are left there.
    """
    import safetensors.torch
    import timm

    tensors = {key: value.detach().cpu().contiguous() for key, value in encoder.module.state_dict().items()}
    # Names of our own (EVA-X's) are registered here and nowhere else.
    if not timm.is_model(encoder.name) or not timm.model_entrypoint(encoder.name).__module__.startswith("timm."):
        raise InputError(f"timm has no {encoder.name}; take --to onnx or pth")
    published = timm.get_pretrained_cfg(encoder.name)
    sized: dict[str, Any] = (
        {"img_size": encoder.image_size} if published is not None and published.fixed_input_size else {}
    )
    plain: Any = timm.create_model(encoder.name, in_chans=1, num_classes=len(labels), **sized)
    config: dict[str, Any] = dict(plain.pretrained_cfg)
    if labels:
        tensors |= _timm_head(encoder, places, str(config["classifier"]))
    shapes = {key: value.shape for key, value in plain.state_dict().items()}
    if {key: value.shape for key, value in tensors.items()} != shapes:
        raise InputError(f"this {encoder.name} is none of timm's own (a small stem?); take --to onnx or pth")
    size = encoder.image_size
    kept = {key: config[key] for key in ("classifier", "first_conv", "interpolation", "crop_mode") if key in config}
    kept |= {"input_size": [1, size, size], "mean": [encoder.mean], "std": [encoder.std], "crop_pct": 1.0}
    kept |= {"num_classes": len(labels), "fixed_input_size": bool(config.get("fixed_input_size", False))}
    described = {"architecture": encoder.name, "num_classes": len(labels), "pretrained_cfg": kept}
    described |= {"num_features": int(plain.num_features), "label_names": list(labels), "model_args": {"in_chans": 1}}
    folder.mkdir(parents=True, exist_ok=True)
    atomic.write_text(folder / "README.md", card)  # first: it tells whose folder it is
    _save(folder / "model.safetensors", lambda path: safetensors.torch.save_file(tensors, path, {"format": "pt"}))
    atomic.write_text(folder / "config.json", json.dumps(described, indent=2) + "\n")
    again = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    images = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 1, size, size)).astype(np.float32))
    with torch.inference_mode():
        network = encoder.module if encoder.classifier is None else encoder.classifier
        wanted = network.cpu()(images)
        found = again(images)
    try:
        return _close(found.numpy(), (wanted[:, list(places)] if labels else wanted).numpy(), folder)
    except FailedError:
        (folder / "model.safetensors").unlink()
        raise


def _timm_head(encoder: Encoder, places: Sequence[int], name: str) -> dict[str, torch.Tensor]:
    """The linear head as timm's own classifier."""
    assert encoder.classifier is not None
    head = encoder.classifier.head
    if not isinstance(head, nn.Linear):
        kind = encoder.classifier.facts["head"].get("kind")
        raise InputError(f"a head of kind {kind} is none of timm's classifiers; take --to onnx or pth")
    state = {"weight": head.weight[list(places)], "bias": head.bias[list(places)]}
    return {f"{name}.{key}": value.detach().cpu().contiguous() for key, value in state.items()}
