"""`cxrdist report`: one HTML file about a study."""

from __future__ import annotations

from dataclasses import dataclass

HELP = "Write one self-contained HTML report of a study."
POSITIONALS = ("inputs",)


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to report on."""

    inputs: list[str]
    """A folder of runs, runs, or files from `cxrdist collect`."""
    out: str | None = None
    """HTML file to write; None = report.html in the (first) folder, or beside the file."""
    title: str = "Results"
    """Heading of the page."""


def run(config: Config) -> None:
    """Collect, draw, write, and say where."""
    from pathlib import Path

    from results.report import write_report

    first = Path(config.inputs[0])
    out = Path(config.out) if config.out else (first if first.is_dir() else first.parent) / "report.html"
    left_out = write_report(config.inputs, out, config.title)
    more = f" ({len(left_out)} tables or figures do not fit these results; the page says why)" if left_out else ""
    print(f"{out}{more}")
