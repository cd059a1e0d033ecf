"""`cxrdist evaluate`: test a fine-tuned run on other shard sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

HELP = "Test a fine-tuned run on other shard sets, over the labels that both have, and add the numbers to the run."
POSITIONALS = ("run",)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which run, and what to test it on."""

    run: str
    """A finished fine-tuning run."""
    shards: list[str] | str
    """Shard sets with a test split, folders or URLs; or one string separated by commas."""
    uncertain: Literal["ones", "zeros", "ignore"] | dict[str, Literal["ones", "zeros", "ignore"]] | None = None
    """What uncertain labels of the test set count as; None = the run's policy."""
    blanks: Literal["zeros", "ignore"] | None = None
    """What labels not mentioned count as; None = the run's policy."""
    level: Literal["image", "study", "study_max"] | None = None
    """What is scored: image, study (the mean over a study's images) or study_max (their highest); None = as the run."""
    stage: Literal["none", "ram", "disk"] = "none"
    """Where shard sets are copied before reading: ram is /dev/shm, disk the node's own disk."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto, cpu or cuda."""


def run(config: Config) -> int:
    """Test and print one line per label."""
    from cxrdist.finetune.config import words
    from cxrdist.finetune.evaluate import evaluate

    rows = evaluate(
        config.run,
        words(config.shards) or [],
        uncertain=config.uncertain,
        blanks=config.blanks,
        level=config.level,
        device=config.device,
        stage=config.stage,
    )
    counts = f"{'positive':>8} {'negative':>8}"
    print(f"{'test set':<20} {'label':<28} {'AUROC':>7}  {'95 % interval':<16} {counts}  {'level':<9}  policy")
    for row in rows:
        if row["metric"] != "auroc":
            continue
        value = "  null" if row["value"] is None else f"{row['value']:.4f}"
        interval = "" if row["ci_low"] is None else f"{row['ci_low']:.4f}-{row['ci_high']:.4f}"
        counts = " ".join(f"{'' if row.get(name) is None else row[name]:>8}" for name in ("n_pos", "n_neg"))
        how = f"{row['level']:<9}  {row['label_policy']}"
        print(f"{row['test_dataset']:<20} {row['label']:<28} {value:>7}  {interval:<16} {counts}  {how}")
    return 0
