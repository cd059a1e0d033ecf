"""`cxrdist ensemble`: what several fine-tuned runs predict together."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

HELP = "Average the predictions of runs that learnt from the same labelled images, and score the averages."
POSITIONALS = ("runs",)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which runs, and where their ensembles go."""

    runs: list[str]
    """Finished fine-tuning runs, or folders of them (sweeps); those with equal labelled images and seed are united."""
    out: str
    """Folder of the ensembles, one run each."""


def run(config: Config) -> int:
    """Make the ensembles and print what they are of."""
    from results.ensemble import make
    from results.schema import read_metrics

    made, warnings = make(config.runs, Path(config.out))
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for one in made:
        rows = read_metrics(one.metrics).to_pylist()
        row = next(row for row in rows if (row["label"], row["metric"]) == ("macro", "auroc"))
        value = "undefined" if row["value"] is None else f"{row['value']:.4f}"
        labels = f"label_fraction {row['label_fraction']:g}, seed {row['seed']}"
        print(f"{one.path}: {row['init']}, {labels}: test_auroc {value}")
    return 0
