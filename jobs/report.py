"""`cxrdist report`: one HTML file about a study."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from results.cells.options import Options

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
    labels: str | None = None
    """Labels that macro means go over and that rows of labels show: names by commas, chexpert5 or shared; None =
    all that the compared runs have."""
    where: str | None = None
    """Filters with blanks between, e.g. "mode=full optim.lr=0.001": the runs that the report is about, with the
    pretraining runs that they started from. None = all."""
    level: Literal["image", "study", "study_max"] | None = None
    """What is scored: image, study (the mean over a study's images) or study_max (their highest), made from
    the predictions where runs were not scored so; None = what the results hold, one or the other."""
    allow: str | None = None
    """What is refused unless asked for: splits, policies, levels (mixed on a test set), configs, sets, seeds (several
    configurations, test sets of one name, runs of one seed in one cell)."""


def options_of(config: Config) -> Options:
    """Return what the report's filters choose.

    Raises:
        InputError: an unknown label, filter or allowance.
    """
    from results.cells.options import Options, filters, words
    from results.cells.select import label_names

    return Options(
        labels=label_names(words(config.labels)),
        where=filters(config.where, config.level),
        allow=words(config.allow),
    )


def run(config: Config) -> None:
    """Collect, draw, write, and say where."""
    from pathlib import Path

    from results.report.report import write_report

    first = Path(config.inputs[0])
    out = Path(config.out) if config.out else (first if first.is_dir() else first.parent) / "report.html"
    left_out = write_report(config.inputs, out, config.title, options_of(config))
    more = f" ({len(left_out)} tables or figures do not fit these results; the page says why)" if left_out else ""
    print(f"{out}{more}")
