"""`cxrdist collect`: one Parquet file from any number of runs."""

from __future__ import annotations

import sys
from dataclasses import dataclass

HELP = "Unite the results of any number of runs in one Parquet file."
POSITIONALS = ("paths",)

SHOWN_WARNINGS = 10


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to collect, and where to."""

    paths: list[str]
    """Run folders, folders of runs at any depth, metrics.parquet files, or files from an earlier collect."""
    out: str = "results.parquet"
    """The file to write; an existing one is replaced in one piece."""
    unfinished: bool = False
    """Whether runs that are not done count if they already wrote metrics."""
    quiet: bool = False
    """Whether to leave out the list of what was skipped."""


def run(config: Config) -> None:
    """Collect, name what was skipped on stderr, and say what was written."""
    from results.light import without_pandas

    without_pandas()
    from results.collect import collect

    table, warnings = collect(config.paths, config.out, unfinished=config.unfinished)
    if not config.quiet:
        for warning in warnings[:SHOWN_WARNINGS]:
            print(f"note: {warning}", file=sys.stderr)
        if len(warnings) > SHOWN_WARNINGS:
            print(f"note: and {len(warnings) - SHOWN_WARNINGS} more of these", file=sys.stderr)
    runs = len(set(table["run"].to_pylist()))
    skipped = f", {len(warnings)} notes" if warnings else ""
    print(f"{config.out}: {len(table)} rows from {runs} run{'' if runs == 1 else 's'}{skipped}")
