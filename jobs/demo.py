"""`cxrdist demo`: the whole chain on one machine, each step the ordinary subcommand a user would type."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from jobs.cli import UsageError
from shards import ranges
from slurm.processes import python

HELP = "Run the whole chain on one machine: X-rays, shards, SimCLR, a Ray Tune sweep, a paper table and its figure."

FORMAT_VERSION = 1
PIXELS = 96  # stored; models see fewer, and augmentation has something to crop from
SEEDS = (0, 1)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much work the demo does; the defaults are chosen so that two CPU cores keep README's promise."""

    patients: Annotated[int, "[1, inf)"] = 500
    """Patients of each generated dataset, about 2.5 pictures each."""
    arch: str = "resnet10t"
    """timm name of the network; the default is timm's smallest ResNet that is more than a test."""
    image_size: Annotated[int, "[16, 4096]"] = 64
    """Pixels at which models see the images."""
    global_batch: Annotated[int, "[2, inf)"] = 128
    """Images in a pretraining step, over all ranks."""
    pretrain_epochs: Annotated[int | None, "[1, inf)"] = None
    """Passes of SimCLR over the unlabelled train images; None = 14 for generated X-rays, 12 for --data."""
    finetune_epochs: Annotated[int | None, "[1, inf)"] = None
    """Passes of a fine-tuning over its labelled images; None = 5 for generated X-rays, 4 for --data."""
    min_steps: Annotated[int, "[0, inf)"] = 30
    """Optimiser steps that a fine-tuning gets at least, however few its labels."""
    label_fractions: Annotated[list[float], "(0, 1]"] = field(default_factory=lambda: [0.01, 0.1, 1.0])
    """Label fractions of the grid, each in (0, 1]."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """The whole chain, small."""

    out: str = "runs/demo"
    """Folder for everything the demo makes; running it again reuses what is complete."""
    data: str | None = None
    """Your own shard set (a folder with dataset.json) or a MedMNIST .npz; None = generated NIH and CheXpert X-rays."""
    seed: Annotated[int, ranges.SEEDS] = 0
    """Seed of the generated X-rays and of pretraining."""
    nproc: Annotated[int, "[1, 1024]"] = 2
    """Ranks of pretraining on this machine."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto, cpu or cuda."""
    scale: Scale = field(default_factory=Scale)
    """How much work."""

    @property
    def pretrain_epochs(self) -> int:
        """Passes of SimCLR over the train images."""
        return self.scale.pretrain_epochs or (14 if self.data is None else 12)

    @property
    def finetune_epochs(self) -> int:
        """Passes of a fine-tuning over its labelled images."""
        return self.scale.finetune_epochs or (5 if self.data is None else 4)


def run(config: Config) -> int:
    """Run every step; stop at the first that fails and return its exit code."""
    started = time.monotonic()
    out = _claim(config)
    for title, words in _steps(config, out):
        code = _step(title, words)
        if code:
            print(f"\ncxrdist demo: that step ended with exit code {code}; fix it and run the demo again", flush=True)
            return code
    _close(out, time.monotonic() - started)
    return 0


def _claim(config: Config) -> Path:
    """Return the output folder, made and marked as a demo's with these settings.

    Raises:
        UsageError: the folder holds something else, or a demo with other settings; --data is not usable.
    """
    out = Path(config.out)
    asked = {"format_version": FORMAT_VERSION, "data": config.data and str(Path(config.data).resolve())}
    asked |= {"seed": config.seed, "scale": asdict(config.scale)}
    marker = out / "demo.json"
    if out.exists() and not out.is_dir():
        raise UsageError(f"demo: --out {out} is a file, not a folder; choose another --out")
    if marker.is_file():
        found = json.loads(marker.read_text())
        if found != asked:
            raise UsageError(f"demo: --out {out} holds a demo with other settings; choose another --out")
    elif out.is_dir() and any(out.iterdir()):
        raise UsageError(f"demo: {out} holds something else already; choose another --out or an empty folder")
    if config.data is not None:
        _check_data(Path(config.data))
    out.mkdir(parents=True, exist_ok=True)
    temporary = marker.with_suffix(".tmp")
    temporary.write_text(json.dumps(asked))
    os.replace(temporary, marker)
    return out


def _check_data(data: Path) -> None:
    if not data.exists():
        raise UsageError(f"demo: --data {data}: no such file or folder")
    if data.is_dir() and not (data / "dataset.json").is_file():
        raise UsageError(f"demo: --data {data} is not a shard set (no dataset.json); make one with `cxrdist shard`")
    if data.is_file() and data.suffix != ".npz":
        raise UsageError(f"demo: --data {data} is neither a shard set folder nor a MedMNIST .npz file")


def _steps(config: Config, out: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield (title, words of the subcommand) in order; a later step may look at what an earlier one wrote."""
    shard_sets: dict[str, Path] = {}
    if config.data is None:
        yield from _generated(config, out, shard_sets)
    elif Path(config.data).is_dir():
        shard_sets["data"] = Path(config.data)
    else:
        shard_sets["data"] = out / "shards" / "data"
        yield (
            "Convert the MedMNIST file to a shard set",
            ["shard", "medmnist", "--src", config.data, "--out", str(shard_sets["data"])],
        )
    for name, shards in shard_sets.items():
        yield (
            f"Pretrain a SimCLR encoder on the unlabelled train images of {_display(name)} ({config.nproc} ranks)",
            _pretrain_words(config, shards, out / "pretrain" / name),
        )
    spec = _write_spec(config, out, shard_sets)
    sweep = out / "sweep"
    yield (
        "Fine-tune the grid: label fraction x dataset x initialisation x seed (Ray Tune)",
        ["sweep", "--config", str(spec), "--out", str(sweep)],
    )
    results = out / "results.parquet"
    yield "Collect every run's results into one file", ["collect", str(sweep), "--out", str(results)]
    table = ["table", "label-efficiency", str(results)]
    yield "The paper table, as LaTeX", [*table, "--format", "latex", "--out", str(out / "table.tex")]
    yield "and as Markdown", [*table, "--format", "markdown", "--out", str(out / "table.md")]
    yield (
        "The paper figure",
        ["plot", "label-efficiency", str(results), "--out", str(out / "label_efficiency.png")],
    )


def _generated(config: Config, out: Path, shard_sets: dict[str, Path]) -> Iterator[tuple[str, list[str]]]:
    for position, style in enumerate(("nih", "chexpert")):
        source, shards = out / "source" / style, out / "shards" / style
        yield (
            f"Draw chest X-rays in the published layout of {_display(style)}",
            ["shard", "phantom", "--style", style, "--patients", str(config.scale.patients)]
            + ["--size", str(PIXELS), "--seed", str(config.seed + position), "--layout_only", "--out", str(source)],
        )
        # CheXpert's test set is not always at hand: its valid.csv is then the test set, and val is cut from train.
        more = ["--valid_as", "test", "--val_fraction", "0.1"] if style == "chexpert" else []
        yield (
            f"Convert {_display(style)} to a shard set",
            ["shard", style, "--src", str(source), "--out", str(shards), "--size", str(PIXELS), *more],
        )
        shard_sets[style] = shards


def _display(name: str) -> str:
    return {"nih": "NIH ChestX-ray14", "chexpert": "CheXpert", "data": "your data"}[name]


def _batch(config: Config, shards: Path) -> int:
    """The global batch; on a small set of your own no more than there are images to learn from."""
    from shards import read_card

    card = read_card(shards)
    n = card.counts["train"]["n"] if "train" in card.splits else 0
    n = n if "val" in card.splits else int(0.85 * n)  # a tenth of the patients is held out then
    return max(2 * config.nproc, min(config.scale.global_batch, n - n % config.nproc))


def _pretrain_words(config: Config, shards: Path, run: Path) -> list[str]:
    return [
        *("pretrain", "--shards", str(shards), "--out", str(run), "--arch", config.scale.arch),
        *("--image_size", str(config.scale.image_size)),
        *("--global_batch", str(_batch(config, shards)), "--epochs", str(config.pretrain_epochs)),
        # LARS, the default, wants larger batches and more steps than a demo has.
        *("--optim.name", "adamw", "--optim.lr", "0.002"),
        *("--seed", str(config.seed), "--nproc", str(config.nproc), "--device", config.device),
    ]


def _write_spec(config: Config, out: Path, shard_sets: dict[str, Path]) -> Path:
    """Write the sweep's TOML beside its results; a user copies it and changes the lists."""
    import tomli_w

    from shards.labels import SHARED_NIH_CHEXPERT

    spec: dict[str, Any] = {
        "axes": {
            "label_fraction": config.scale.label_fractions,
            "shards": [str(path) for path in shard_sets.values()],
            "init": ["scratch", *(str(out / "pretrain" / name) for name in shard_sets)],
            "seed": list(SEEDS),
        },
        "finetune": {
            "arch": config.scale.arch,
            "image_size": config.scale.image_size,
            "mode": "full",
            "epochs": config.finetune_epochs,
            "min_steps": config.scale.min_steps,
            **({"labels": list(SHARED_NIH_CHEXPERT)} if config.data is None else {}),
            "device": config.device,
        },
    }
    path = out / "label_efficiency.toml"
    text = "# The demo's grid: every combination of the lists under [axes], each with what [finetune] says.\n"
    text += f"# cxrdist sweep --config {path} --out {out / 'sweep'}\n\n" + tomli_w.dumps(spec)
    if not path.is_file() or tomllib.loads(path.read_text()) != spec:
        temporary = path.with_suffix(".tmp")
        temporary.write_text(text)
        os.replace(temporary, path)
    return path


def _step(title: str, words: Sequence[str]) -> int:
    """Print and run one `cxrdist` command as a process of its own, exactly as a user would."""
    print(f"\n# {title}\n$ cxrdist {shlex.join(words)}", flush=True)
    started = time.monotonic()
    code = subprocess.run(python("-m", "jobs.cli", *words), check=False).returncode
    print(f"# {'done' if code == 0 else 'failed'} in {time.monotonic() - started:.1f} s", flush=True)
    return code


def _close(out: Path, seconds: float) -> None:
    print(f"\n{(out / 'table.md').read_text()}")
    print(f"The chain took {seconds:.0f} s. What it made:")
    for name, what in {
        "results.parquet": "every number, one row each (pandas: results.load)",
        "table.md": "the table above; table.tex is its LaTeX",
        "label_efficiency.png": "the figure",
        "label_efficiency.toml": "the grid's spec, to copy and change",
        "sweep": "one folder per fine-tuning, with per-sample predictions",
    }.items():
        print(f"  {out / name}  {what}")
