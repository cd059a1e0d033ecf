"""`cxrdist demo`: a short spelling of `cxrdist study run demo`, the whole chain on one machine (jobs/studies)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from jobs.cli import UsageError
from shards import ranges

HELP = "Run the whole chain on one machine: X-rays, shards, SimCLR, a Ray Tune sweep, a paper table and its figure."


@dataclass(frozen=True, kw_only=True)
class Config:
    """The whole chain, small; `cxrdist study run demo --set ...` changes more of it."""

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
    dry_run: bool = False
    """True: print every command, its state and what is known of its cost; run nothing."""


def run(config: Config) -> int:
    """Run the demo's study; the exit code is the study's."""
    from jobs._study.file import find, load
    from jobs._study.folder import StudyFolder
    from jobs.study import carry_out

    name, values = study_of(config)
    study = load(find(name), values)
    return carry_out(study, StudyFolder(Path(config.out).expanduser().absolute()), {}, dry_run=config.dry_run)


def study_of(config: Config) -> tuple[str, dict[str, str]]:
    """Return the name of the study that the options ask for, and its values.

    Raises:
        UsageError: --data is not usable.
    """
    values = {"seed": str(config.seed), "nproc": str(config.nproc), "device": config.device}
    if config.data is None:
        return "demo", {**values, "chexpert_seed": str((config.seed + 1) % 2**63)}
    data = Path(config.data).expanduser()
    values["data"] = str(data.resolve())
    if not data.exists():
        raise UsageError(f"demo: --data {data}: no such file or folder")
    if data.is_file() and data.suffix != ".npz":
        raise UsageError(f"demo: --data {data} is neither a shard set folder nor a MedMNIST .npz file")
    if data.is_file():
        return "demo_medmnist", values
    if not (data / "dataset.json").is_file():
        raise UsageError(f"demo: --data {data} is not a shard set (no dataset.json); make one with `cxrdist shard`")
    return "demo_shards", {**values, "global_batch": str(_batch(config, data))}


LARGEST_BATCH = 128


def _batch(config: Config, shards: Path) -> int:
    """The global batch: on a small set no more than there are images to learn from."""
    from shards import read_card

    card = read_card(shards)
    n = card.counts["train"]["n"] if "train" in card.splits else 0
    n = n if "val" in card.splits else int(0.85 * n)  # a tenth of the patients is held out then
    return max(2 * config.nproc, min(LARGEST_BATCH, n - n % config.nproc))
