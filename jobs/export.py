"""`cxrdist export`: a trained network for use without cxrdist."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Literal

HELP = "Write a trained network as ONNX, as plain PyTorch state dicts, or as a folder that timm loads, and check it."
POSITIONALS = ("run",)


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to export, and how."""

    run: str
    """A fine-tuning or pretraining run, or a .safetensors file of one."""
    to: Literal["onnx", "pth", "hf"] = "hf"
    """onnx: grey values in, probabilities out (needs the extra `onnx`). pth: state dicts best_ssl_model.pth or
    best_LABEL_classifier.pth. hf: model.safetensors, config.json and a model card, in the style of the Hugging Face
    hub, loaded by timm.create_model("local-dir:FOLDER", pretrained=True)."""
    out: str | None = None
    """File (onnx) or folder (pth, hf); None = export.onnx, export-pth or export-hf in the run."""


def run(config: Config) -> int:
    """Export and check."""
    from pathlib import Path

    from cxrdist.core.shard_sets import run_of
    from cxrdist.errors import InputError
    from cxrdist.inference import export
    from cxrdist.inference import network as networks
    from cxrdist.inference.model_card import model_card
    from cxrdist.inference.predict import columns_of

    network = networks.load(config.run, "cpu")
    labels, places = ([], []) if network.classifier is None else columns_of(config.run, network)
    if config.out is None and not Path(config.run).is_dir():
        raise InputError(f"{config.run} is a file, not a run: say with --out where to write")
    out = Path(config.out or Path(config.run) / {"onnx": "export.onnx"}.get(config.to, f"export-{config.to}"))
    if config.to == "onnx":
        if out.is_dir() or out.suffix != ".onnx":
            raise InputError(f"--out {out}: name a file that ends in .onnx")
        gap = export.to_onnx(network, labels, places, out)
        print(f"{out}: checked by onnxruntime, largest difference {gap:.1e}", file=sys.stderr)
        return 0
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not _ours(out)):
        raise InputError(f"--out {out} holds something else; name a new or an empty folder")
    if config.to == "pth":
        files = export.to_pth(network, labels, out)
        print(f"{', '.join(map(str, files))}: plain state dict and its facts", file=sys.stderr)
        return 0
    name = f"{network.name} of {Path(config.run).name}"
    card = model_card(run_of(config.run), name, labels, export.preprocessing(network))
    gap = export.to_hf(network, labels, places, out, card)
    print(f"{out}: loaded by timm, largest difference {gap:.1e}", file=sys.stderr)
    return 0


def _ours(folder: object) -> bool:
    """Whether a folder holds an earlier export and nothing else."""
    from pathlib import Path

    from cxrdist.inference.export import PREPROCESSING
    from cxrdist.inference.model_card import LIMITS

    def says(name: str, words: str) -> bool:
        path = Path(str(folder)) / name
        return path.is_file() and words in path.read_text(encoding="utf-8", errors="replace")

    inside = {path.name for path in Path(str(folder)).iterdir()}
    if inside <= {"model.safetensors", "config.json", "README.md"}:
        return says("README.md", LIMITS[0])
    facts = {name for name in inside if name.endswith(".json") and says(name, PREPROCESSING)}
    return all(name in facts or (name.endswith(".pth") and f"{name[:-4]}.json" in facts) for name in inside)
